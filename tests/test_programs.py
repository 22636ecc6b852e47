# ruff: noqa: E501  a program a line
"""The grader of programs: verdicts as they are expected, one by one; hostile programs are contained and never pass.

Everything here runs in the sandbox, and is left out where there is none.
"""

import time
from typing import Any

import pytest

from star1.errors import InputError
from star1.graders.confined import Other, decode, encode
from star1.graders.programs import program_of
from star1.grading import grade
from star1.records import Row
from star1.sandbox import NoSandboxError, Sandbox, check

WALL_S = 5.0


@pytest.fixture(scope="module", autouse=True)
def sandbox() -> None:
    try:
        check()
    except NoSandboxError as error:
        pytest.skip(f"no sandbox: {error}")


ADD: Row = {
    "id": "add",
    "benchmark": "programs",
    "grader": "code",
    "question": 'import math\nfrom typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add two numbers."""\n',
    "tests": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n    assert add(b=2, a=2) == 4\n",
    "entry_point": "add",
}
# Values of all plain kinds have to come back as what they are.
ECHO: Row = {
    "id": "echo",
    "benchmark": "programs",
    "grader": "code",
    "question": 'def echo(value):\n    """Give the value back."""\n',
    "tests": (
        "def check(candidate):\n"
        "    for value in (None, True, 0, -7, 10**400, 1.5, float('inf'), 1j, 'é\\ud800', b'\\x00', [1, [2]], (1, (2,)), {1, 2},\n"
        "                  frozenset('ab'), {'a': 1, (1, 2): [None]}, [], {}, (), '', [True, 1, 1.0]):\n"
        "        found = candidate(value)\n"
        "        assert found == value and type(found) is type(value), (value, found)\n"
        "    assert [type(one) for one in candidate([True, 1, 1.0])] == [bool, int, float]\n"
        "    assert list(candidate(iter('abc'))) == ['a', 'b', 'c'] and list(candidate(range(3))) == [0, 1, 2]\n"
        "    nan = candidate(float('nan'))\n"
        "    assert nan != nan\n"
    ),
    "entry_point": "echo",
}
RAISES: Row = {
    **ADD,
    "id": "raises",
    "tests": (
        "def check(candidate):\n    try:\n        candidate('a', 1)\n    except TypeError:\n        pass\n    else:\n        assert False\n"
        "    try:\n        candidate(1, 1)\n    except:\n        pass\n    assert True\n"
    ),
}
HELPED: Row = {
    **ADD,
    "id": "helped",
    "question": 'def twice(a):\n    return 2 * a\n\n\ndef half(a):\n    """Undo twice."""\n',
    "tests": "def check(candidate):\n    assert all(candidate(twice(one)) == one for one in range(20))\n    assert half(4) == 2\n",
    "entry_point": "half",
}


def block(text: str, language: str = "python") -> str:
    return f"Here it is.\n\n```{language}\n{text}\n```\n\nThat is all."


GOOD = "def add(a, b):\n    return a + b"
TAKE = "def add(a, b):\n    return {}"
SELF = "import sys, gc\n"

# (row, answer of the model, whether it is right)
CASES: list[tuple[Row, str, bool]] = [
    # how a program is given
    (ADD, block(GOOD), True),
    (ADD, block(GOOD, ""), True),
    (ADD, block(GOOD, "Python"), True),
    (ADD, block(GOOD, "py"), True),
    (ADD, block(GOOD, "rust"), False),
    (ADD, f"~~~python\n{GOOD}\n~~~", True),
    (ADD, f"````python\n{GOOD}\n````", True),
    (ADD, f"```python\n{GOOD}", True),  # cut off behind the code
    (ADD, block("def add(a, b):\n    return 0") + block(GOOD), True),  # the last one counts
    (ADD, block(GOOD) + block("def add(a, b):\n    return 0"), False),
    (ADD, block(GOOD) + block("print(add(1, 2))"), True),
    (ADD, block("add = lambda a, b: a + b"), True),
    (ADD, block("def plus(a, b):\n    return a + b\n\n\ndef add(a, b):\n    return plus(a, b)"), True),
    (ADD, block("def add(a: List[int], b) -> int:\n    return math.floor(a + b)"), True),  # the prompt's imports
    (ADD, GOOD, True),
    (ADD, f"Sure:\n\n{GOOD}\n", True),
    (ADD, "    return a + b\n", True),
    (ADD, block("    return a + b"), True),
    (ADD, block("return a + b"), True),
    (ADD, block("class Solution:\n    def add(self, a, b):\n        return a + b"), False),
    (ADD, "a + b is what you want.", False),
    (ADD, "", False),
    (ADD, block(""), False),
    (ADD, block("def add(a, b)\n    return a + b"), False),
    (ADD, block(GOOD + "\n\nassert add(1, 2) == 4"), False),
    (ADD, block(GOOD + "\n\nif __name__ == '__main__':\n    raise SystemExit(1)"), True),
    (ADD, block(GOOD.replace("+", "-")), False),
    (ADD, block(GOOD + "\nx = input()"), False),
    (ADD, block("async def add(a, b):\n    return a + b"), False),
    # values and exceptions
    (ECHO, block("def echo(value):\n    return value"), True),
    (ECHO, block("def echo(value):\n    return list(value) if isinstance(value, tuple) else value"), False),
    (ECHO, block("def echo(value):\n    return str(value)"), False),
    (ADD, block(TAKE.format("float(a + b)")), True),  # 3.0 == 3 in Python
    (ADD, block(TAKE.format("str(a + b)")), False),
    (ADD, block(TAKE.format("[a + b]")), False),
    (ADD, block(TAKE.format("None")), False),
    (ADD, block(TAKE.format("a + b if a != -1 else 1 / 0")), False),
    (RAISES, block(GOOD), True),
    (RAISES, block("def add(a, b):\n    raise ValueError(a)"), False),
    (HELPED, block("def half(a):\n    return a // 2"), True),
    (HELPED, block("def twice(a):\n    return 0\n\n\ndef half(a):\n    return 0"), False),
    (HELPED, block("def half(a):\n    return [one for one in range(a + 1) if twice(one) == a][0]"), True),
    # a verdict cannot be forged
    (ADD, block("import os\nprint('passed')\nprint('{\"outcome\": \"passed\"}')\nos._exit(0)"), False),
    (ADD, block("raise SystemExit(0)\n" + GOOD), False),
    (ADD, block("import sys\ndef add(a, b):\n    sys.exit(0)"), False),
    (ADD, block("import os\ndef add(a, b):\n    os._exit(0)"), False),
    (RAISES, block("import os\ndef add(a, b):\n    os._exit(0)"), False),  # `except:` of a test does not hide that it is gone
    (ADD, block("class Equal:\n    def __eq__(self, other):\n        return True\n\n\ndef add(a, b):\n    return Equal()"), False),
    (ADD, block("class Equal(int):\n    def __eq__(self, other):\n        return True\n\n\ndef add(a, b):\n    return Equal(9)"), False),
    (ADD, block("import builtins\nbuiltins.AssertionError = ValueError\ndef add(a, b):\n    return 0"), False),
    (ADD, block("def check(candidate):\n    pass\n\n\ndef add(a, b):\n    return 0"), False),
    (ADD, block(SELF + "for one in gc.get_objects():\n    if isinstance(one, dict) and 'tests' in one:\n        raise SystemExit\n"
                "def add(a, b):\n    return 0"), False),
    (ADD, block(SELF + "def add(a, b):\n    frame = sys._getframe()\n    while frame:\n        frame.f_globals['send'] = lambda *_: None\n"
                "        frame = frame.f_back\n    return 0"), False),
    (ADD, block("import os\nfor end in range(3, 32):\n    try:\n        os.write(end, b'{\"value\": null}\\n' * 9)\n    except OSError:\n"
                "        pass\ndef add(a, b):\n    return 0"), False),
    (ADD, block("import os\ndef add(a, b):\n    for end in range(32):\n        try:\n            os.write(end, b'garbage\\n')\n"
                "        except OSError:\n            pass\n    return a + b"), False),
    (ADD, block("import os\ndef add(a, b):\n    for end in range(32):\n        try:\n            os.close(end)\n"
                "        except OSError:\n            pass\n    return a + b"), False),
    (ADD, block("import os, signal\ndef add(a, b):\n    os.kill(-1, signal.SIGKILL)"), False),
    (ADD, block("class Loud(Exception):\n    def __str__(self):\n        raise SystemExit\n\n\ndef add(a, b):\n    raise Loud"), False),
    # other ways to go wrong
    (ADD, block("def add(a, b):\n    return add(a, b)"), False),
    (ADD, block("def add(a, b):\n    found = []\n    found.append(found)\n    return found"), False),
    (ADD, block("def add(a, b):\n    return (one for one in iter(int, 1))"), False),
    (ADD, block("import numpy\n" + GOOD), False),  # the standard library is all there is
    (ADD, block("import ctypes\nctypes.string_at(0)\n" + GOOD), False),
    (ADD, block("import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b):\n    return add(a, b)"), False),
    (ADD, block("def add(a, b):\n    print('x' * 1000)\n    return a + b"), True),
    (ADD, block("import decimal, fractions, hashlib, re, itertools, heapq, json, random, zlib, bisect, datetime\n" + GOOD), True),
]  # fmt: skip


@pytest.mark.parametrize(("row", "text", "right"), CASES)
def test_verdicts_as_expected(row: Row, text: str, right: bool) -> None:
    found = grade(row, text, Sandbox(wall_s=WALL_S))
    assert (found.verdict == "correct") is right, found


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert 20 <= sum(right for *_, right in CASES) <= len(CASES) - 20


# What a program tries, and a word of what comes of it.
CONTAINED = {
    "fork bomb": ("import os\nwhile True:\n    os.fork()", "PermissionError"),
    "subprocess": ("import subprocess\nsubprocess.run(['/bin/sh'])", "PermissionError"),
    "posix_spawn": ("import os, sys\nos.posix_spawn(sys.executable, ['python'], {})", "PermissionError"),
    "thread bomb": ("import threading\nwhile True:\n    threading.Thread(target=input).start()", "RuntimeError"),
    "clone3 by number": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "raise OSError(libc.syscall(435, 0, 0), ctypes.get_errno())",
        "[Errno -1] 38",
    ),
    "file write": ("open('/tmp/x', 'w')", "No such file"),
    "file write in the root": ("open('/x', 'w')", "Read-only"),
    "script overwritten": ("open('/script.py', 'w')", "Read-only"),
    "library overwritten": ("import os\nopen(os.__file__, 'w')", "Read-only"),
    "symbolic link out": ("import os\nos.symlink('/etc/passwd', '/link')", "Read-only"),
    "hard link": ("import os\nos.link(os.__file__, '/link')", "OSError"),
    "another's files": ("open('/etc/passwd')", "No such file"),
    "the process's own secrets": ("open('/proc/self/environ')", "No such file"),
    "device": ("open('/dev/mem')", "No such file"),
    "mount": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "raise OSError(libc.mount(b'a', b'/', b'tmpfs', 0, 0), ctypes.get_errno())",
        "[Errno -1] 1",
    ),
    "network": ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "PermissionError"),
    "name look-up": ("import socket\nsocket.gethostbyname('localhost')", "gaierror"),
    "memory file": ("import os\nos.memfd_create('x')", "PermissionError"),
    "memory": ("x = bytearray(10**10)", "MemoryError"),
    "memory by pieces": ("x = []\nwhile True:\n    x.append(bytearray(10**6))", "MemoryError"),
    "endless loop": ("while True:\n    pass", "not done within"),
    "endless sleep": ("import time\ntime.sleep(10**6)", "not done within"),
    "loop that catches all": ("while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass", "not done"),
    "huge output": ("while True:\n    print('x' * 10**6)", "not done within"),
    "huge result": ("def add(a, b):\n    return 'x' * 10**8", "returned too much"),
    "endless result": ("import itertools\ndef add(a, b):\n    return itertools.repeat('x' * 1000)", "returned too much"),
    "root": ("import os\nos.setuid(0)", "Invalid argument"),
    "limits raised": ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "not allowed to raise"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTAINED)
def test_contained(what: str) -> None:
    program, told = CONTAINED[what]
    started = time.monotonic()
    found = grade(
        ADD,
        block(f"{program}\n\n\n{GOOD}" if "def add" not in program else program),
        Sandbox(wall_s=2.0 if "not done" in told else 30.0),
    )
    assert (found.verdict, told in found.reason) == ("incorrect", True), found
    assert time.monotonic() - started < 40


def test_nothing_of_the_machine_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither keys nor files nor processes, and only the interpreter's own descriptors."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    program = (
        "import os, sys\nseen = [sorted(os.listdir('/')), dict(os.environ), os.getuid(), os.getpid() < 10, sys.argv]\n"
        "seen.append([end for end in range(3, 32) if os.access in () or not _closed(end)])\n"
    )
    helper = "import os\ndef _closed(end):\n    try:\n        os.fstat(end)\n    except OSError:\n        return True\n"
    found = grade(ADD, block(f"{helper}{program}raise ValueError(seen)\n{GOOD}"), Sandbox(wall_s=WALL_S)).reason
    assert "hf_secret" not in found
    assert "65534, True" in found
    assert "{'PWD': '/'}" in found or "{}" in found
    assert not any(f"'{name}'" in found for name in ("home", "tmp", "proc", "dev", "var", "work"))
    assert found.rstrip("']\"").endswith("[3, 4")


def test_rows_that_cannot_be_graded_are_errors_and_no_verdicts() -> None:
    settings = Sandbox(wall_s=WALL_S)
    for change, told in (
        ({"tests": "def check(candidate):\n    pass"}, "the tests call nothing"),
        ({"tests": "check = 1 / 0"}, "prompt or tests: ZeroDivisionError"),
        ({"question": "def add(:"}, "prompt or tests: SyntaxError"),
        ({"tests": "x = 1"}, "KeyError"),
    ):
        with pytest.raises(InputError, match=told):
            grade({**ADD, **change}, block(GOOD), settings)
    for name in ("tests", "entry_point", "question"):
        with pytest.raises(InputError, match=f"benchmark programs, row add: no {name}"):
            grade({key: one for key, one in ADD.items() if key != name}, block(GOOD), settings)


def test_programs_at_once_do_not_meet() -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [block(GOOD), block(GOOD.replace("+", "-"))] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: grade(ADD, text, Sandbox(wall_s=20.0)).verdict, texts))
    assert found == ["correct", "incorrect"] * 4


def test_what_is_no_value_is_equal_to_nothing() -> None:
    class Own:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    found: Any = decode(encode(Own()))
    assert isinstance(found, Other)
    assert all(bool(found == other) is False for other in (1, None, decode(encode(Own()))))
    unreadable: list[Any] = [
        [1],
        {"int": "x"},
        {"float": "1", "int": "1"},
        {"set": [{"list": []}]},
        {"module": "os"},
        7,
    ]
    for wrong in unreadable:
        with pytest.raises((ValueError, TypeError, KeyError)):
            decode(wrong)


def test_the_program_of_an_answer_has_the_prompts_imports() -> None:
    program = program_of(block(GOOD), ADD["question"], "add")
    assert program is not None
    assert program.startswith("import math\n")
    assert program.endswith("return a + b\n")
