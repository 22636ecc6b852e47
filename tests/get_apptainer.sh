#!/usr/bin/env bash
# get_apptainer.sh FOLDER: a private apptainer (and mmdebstrap) under FOLDER, from Debian's archive, for tests on Debian 12.
# Debian 12 itself has no apptainer. The one of unstable wants a newer C library than is here, so it brings its own and is
# told to use it; nothing outside FOLDER changes. Then: PATH=FOLDER/bin:$PATH
set -euo pipefail
mkdir -p "$1"
to=$(cd "$1" && pwd)
fail() { echo "get_apptainer: $1; expected $2. Hint: $3" >&2; exit 1; }
for command in apt-get dpkg-deb perl; do
    command -v $command >/dev/null || fail "no command $command" "Debian 12" "use your site's apptainer"
done
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Component: main' | head -n 1)}
[ -n "$mirror" ] || fail "apt knows no archive of Debian 12" "one" "set DEBIAN_MIRROR to its address"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/{none,lists/partial,cache/archives/partial,packages,unstable,stable,program}
for suite in sid bookworm; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done > "$scratch/sources.list"
cat > "$scratch/apt.conf" <<END
Dir::Etc::SourceList "$scratch/sources.list";
Dir::Etc::SourceParts "$scratch/none";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "$scratch/none";
Dir::State "$scratch";
Dir::State::status "/dev/null";
Dir::Cache "$scratch/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
(
    export APT_CONFIG=$scratch/apt.conf
    cd "$scratch/packages"
    apt-get -qq update
    apt-get -qq download apptainer/sid libc6/sid libseccomp2/sid libsqlite3-0/sid \
        squashfs-tools/bookworm liblzo2-2/bookworm patchelf/bookworm mmdebstrap/bookworm
)
for package in libc6 libseccomp2 libsqlite3-0; do dpkg-deb -x "$scratch"/packages/${package}_*.deb "$scratch/unstable"; done
for package in squashfs-tools liblzo2-2 patchelf mmdebstrap; do dpkg-deb -x "$scratch"/packages/${package}_*.deb "$scratch/stable"; done
dpkg-deb -x "$scratch"/packages/apptainer_*.deb "$scratch/program"

rm -rf "$to"/{bin,program,libraries,tools}
mkdir -p "$to"/{bin,libraries,tools}
cp -a "$scratch/program" "$to/program"
for library in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libresolv.so.2 libseccomp.so.2 libsqlite3.so.0 'libnss_*'; do
    find "$scratch/unstable" -name "$library" -exec cp -L {} "$to/libraries/" \;
done
cp "$scratch"/stable/usr/bin/{mksquashfs,unsquashfs} "$to/tools/"
find "$scratch/stable" -name liblzo2.so.2 -exec cp -L {} "$to/tools/" \;
patch=$scratch/stable/usr/bin/patchelf
for file in "$to/program/usr/bin/apptainer" "$to/program/usr/lib/x86_64-linux-gnu/apptainer/bin/starter"; do
    "$patch" --set-interpreter "$to/libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$to/libraries" "$file"
done
for file in "$to"/tools/*squashfs; do "$patch" --set-rpath "$to/tools" "$file"; done
# It finds its settings from where it lies, in upstream's order of folders; Debian's has the machine's name in between.
mv "$to/program/etc" "$to/program/var" "$to/program/usr/"
ln -s ../etc "$to/program/usr/lib/etc"
ln -s ../var "$to/program/usr/lib/var"
ln -s . "$to/program/usr/lib/lib"
# It calls itself by the path bin/apptainer, which has to be the wrapper below.
mkdir "$to/program/usr/real"
mv "$to/program/usr/bin/apptainer" "$to/program/usr/real/apptainer"
install -m 755 "$scratch/stable/usr/bin/mmdebstrap" "$to/bin/mmdebstrap"

# A root that lacks a capability (root in a container) cannot hand it on, and apptainer stops: it is told to drop those.
cat > "$to/program/usr/bin/apptainer" <<END
#!/usr/bin/env python3
import os, re, sys
here = "$to"
os.environ["PATH"] = here + "/tools:" + os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
if os.getuid() == 0 and "APPTAINER_DROP_CAPS" not in os.environ:
    names = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
        NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
        SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
        MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
    have = int(re.search(r"^CapPrm:\s*(\w+)", open("/proc/self/status").read(), re.M)[1], 16)
    known = int(open("/proc/sys/kernel/cap_last_cap").read())
    lacking = ["CAP_" + name for bit, name in enumerate(names) if bit <= known and not have >> bit & 1]
    if lacking:
        os.environ["APPTAINER_DROP_CAPS"] = ",".join(lacking)
os.execv(here + "/program/usr/real/apptainer", ["apptainer", *sys.argv[1:]])
END
chmod +x "$to/program/usr/bin/apptainer"
ln -s ../program/usr/bin/apptainer "$to/bin/apptainer"
"$to/bin/apptainer" --version
