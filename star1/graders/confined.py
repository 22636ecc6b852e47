"""What runs in the sandbox: in one process a program written by a model, in another its tests. Stands alone, without star1.

The tests call the program's function over two pipes, and see of it what it returns or raises, as plain values. So the program
never shares memory with its tests: nothing that it prints, patches, compares or exits with can make them pass.
"""

import builtins
import json
import os
import resource
import sys
import types
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeAlias

# The longest message of a program [bytes], and the most values of an iterator that are taken over.
MESSAGE, VALUES = 4_000_000, 100_000
TOLD = 300
# What the process of a program says before it looks at the program.
STARTED = b"started\n"
Reader: TypeAlias = IO[bytes]
Writer: TypeAlias = IO[bytes]


class Unusable(BaseException):
    """The program is gone, or said something that is no value; no `except Exception` of a test holds this up."""


class Other:
    """In place of a value that is not plain; equal to nothing but itself."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def limit(memory_mb: int, seconds: int) -> None:
    """Take away, for good, what a program does not need."""
    bounds = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_NPROC: 0,  # of no effect for root, whom the filter of system calls stops
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in bounds.items():
        resource.setrlimit(what, (most, most))


def encode(value: Any) -> Any:
    """A plain value as JSON that keeps its type and all digits."""
    if value is None or isinstance(value, bool | str):
        return value if not isinstance(value, str) else str(value)
    if isinstance(value, int):
        return {"int": f"{int(value):x}"}
    if isinstance(value, float):
        return {"float": float(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(one)] for key, one in value.items()]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(one) for one in value]}
    if isinstance(value, Iterator | range | type({}.keys()) | type({}.values()) | type({}.items())):
        return {"iterator": [encode(one) for _, one in zip(range(VALUES), value, strict=False)]}
    return {"other": type(value).__name__}


def decode(found: Any) -> Any:
    """What `encode` was given; of an iterator one over the same values.

    Raises:
        ValueError, TypeError, KeyError: `encode` did not write this.
    """
    if found is None or isinstance(found, bool | str):
        return found
    if not isinstance(found, dict):
        raise TypeError(type(found).__name__)
    ((kind, inner),) = found.items()
    if kind == "dict":
        return {decode(key): decode(one) for key, one in inner}
    readers: dict[str, Callable[[], Any]] = {
        "int": lambda: int(inner, 16),
        "float": lambda: float.fromhex(inner),
        "complex": lambda: complex(*map(float.fromhex, inner)),
        "bytes": lambda: bytes.fromhex(inner),
        "list": lambda: [decode(one) for one in inner],
        "tuple": lambda: tuple(decode(one) for one in inner),
        "set": lambda: {decode(one) for one in inner},
        "frozenset": lambda: frozenset(decode(one) for one in inner),
        "iterator": lambda: iter([decode(one) for one in inner]),
        "other": lambda: Other(str(inner)[:TOLD]),
    }
    return readers[kind]()


def send(writer: Writer, message: Any) -> None:
    """Write one message."""
    writer.write(json.dumps(message).encode() + b"\n")
    writer.flush()


def raised(error: BaseException) -> dict[str, str]:
    """The message about an exception of the program; its words may be out of reach, since the class is its own."""
    try:
        return {"raised": type(error).__name__, "words": str(error)[:TOLD]}
    except BaseException:  # noqa: BLE001
        return {"raised": "Exception", "words": "an exception without words"}


def candidate(reader: Reader, writer: Writer) -> None:
    """Run a program, then answer calls of its function."""
    writer.write(STARTED)
    writer.flush()
    task = json.loads(reader.readline())
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    try:
        exec(compile(task["program"], "answer", "exec"), module.__dict__)  # noqa: S102
        function = module.__dict__[task["entry_point"]]
    except BaseException as error:  # noqa: BLE001  whatever it raises, SystemExit too
        send(writer, raised(error))
        return
    send(writer, {"value": None})
    for line in reader:
        call = json.loads(line)
        try:
            value = function(*map(decode, call["args"]), **{key: decode(one) for key, one in call["kwargs"].items()})
            reply = {"value": encode(value)}
        except BaseException as error:  # noqa: BLE001
            reply = raised(error)
        send(writer, reply)


def receive(reader: Reader) -> Any:
    """The next message of the program, or the exception that it tells of.

    Raises:
        Unusable: it is gone, or this is no message.
    """
    line = reader.readline(MESSAGE)
    if not line.endswith(b"\n"):
        raise Unusable("the program returned too much" if len(line) >= MESSAGE else "the program ended")
    try:
        message = json.loads(line)
        if "raised" not in message:
            return decode(message["value"])
        kind, words = str(message["raised"])[:TOLD], str(message["words"])[:TOLD]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        raise Unusable(f"the program returned what is no value ({type(error).__name__})") from None
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, UnicodeError):
        raise known(words)
    raise Exception(f"{kind}: {words}")


class Function:
    """The program's function, as the tests call it: `calls` counts, and `lost` says why nothing more can be had of it."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader, self.writer, self.calls, self.lost = reader, writer, 0, ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it with plain values."""
        self.calls += 1
        named = {key: encode(one) for key, one in kwargs.items()}
        return self.ask({"args": [encode(one) for one in args], "kwargs": named})

    def ask(self, message: Any) -> Any:
        """Send a message, and give what comes back."""
        try:
            send(self.writer, message)
            return receive(self.reader)
        except BrokenPipeError:
            self.lost = "the program ended"
        except Unusable as error:
            self.lost = str(error)
        raise Unusable(self.lost)


def examine(task: dict[str, str], function: Function) -> tuple[str, str]:
    """Run the tests of a task against a program.

    Returns:
        passed, failed, or broken (no fault of the program), and why.
    """
    if function.reader.readline(MESSAGE) != STARTED:
        return "broken", "the program's process did not start"
    # What the prompt itself defines is there for the tests, which now and then use it.
    scope: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(task["prompt"], "prompt", "exec"), scope)  # noqa: S102
        scope[task["entry_point"]] = function
        exec(compile(task["tests"], "tests", "exec"), scope)  # noqa: S102
        check: Callable[[Any], object] = scope["check"]
    except Exception as error:  # noqa: BLE001
        return "broken", f"prompt or tests: {type(error).__name__}: {error}"
    try:
        function.ask({"program": task["program"], "entry_point": task["entry_point"]})
        check(function)
    except (Exception, Unusable) as error:  # noqa: BLE001
        # A test may hold an exception up, but not that the program is gone.
        return "failed", function.lost or f"{type(error).__name__}: {error}"[:TOLD]
    if function.lost or not function.calls:
        return ("failed", function.lost) if function.lost else ("broken", "the tests call nothing")
    return "passed", f"{function.calls} calls"


def main() -> None:
    """`candidate MEMORY SECONDS`, on stdin and stdout; `examiner MEMORY SECONDS FROM TO`, with the task on stdin."""
    role, memory, seconds, *ends = sys.argv[1:]
    if role == "candidate":
        reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        os.dup2(2, 0)  # nothing to read, and what is printed goes nowhere
        os.dup2(2, 1)
        limit(int(memory), int(seconds))
        candidate(reader, writer)
        return
    limit(int(memory), int(seconds))
    task = json.loads(sys.stdin.buffer.read())
    with os.fdopen(int(ends[0]), "rb") as reader, os.fdopen(int(ends[1]), "wb") as writer:
        outcome, why = examine(task, Function(reader, writer))
        print(json.dumps({"outcome": outcome, "why": why}), flush=True)  # noqa: T201
        os._exit(0)


if __name__ == "__main__":
    main()
