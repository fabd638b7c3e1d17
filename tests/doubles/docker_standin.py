"""A stand-in for the docker command: images are folders, containers are processes in a mount namespace of their own.

usage: docker_standin.py CONTAINER.json COMMAND...   CONTAINER.json: {"folder", "python", "gpu": {environment of a GPU}}
It knows the commands and flags that `jetmask deploy` uses and refuses any other, as docker does (exit code 125). What
`--runtime nvidia` brings is there only with that flag; the system is read-only, capabilities are gone, the user is the
one that was asked for. It is no container: the system it shows is this one's.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

VALUES = (
    "--name",
    "--restart",
    "--network",
    "--user",
    "--group-add",
    "--cap-drop",
    "--security-opt",
    "--tmpfs",
    "--runtime",
    "--device",
    "--log-driver",
    "--log-opt",
    "-v",
    "-e",
)
INSIDE = """set -e
mount --bind /tmp /tmp
{mounts}
for place in / /etc /opt /var/lib; do mount -o remount,bind,ro "$place"; done
exec setpriv --reuid {uid} --regid {gid} {groups} --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def fail(text, code=125):
    sys.stderr.write("docker: " + text + "\n")
    sys.exit(code)


class Docker:
    def __init__(self, facts):
        self.python, self.gpu = facts["python"], facts["gpu"]
        self.images, self.containers = (os.path.join(facts["folder"], name) for name in ("images", "containers"))
        for folder in (self.images, self.containers):
            os.makedirs(folder, exist_ok=True)

    def image(self, name):
        return os.path.join(self.images, name.replace(":", "@").replace("/", "_"))

    def record(self, name):
        try:
            with open(os.path.join(self.containers, name + ".json")) as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def alive(self, record):
        return record is not None and born(record["pid"]) == record["born"]

    # ------------------------------------------------------------------------------------------------- commands

    def info(self, words):
        if words:
            form = words[1] if words[0] in ("--format", "-f") else ""
            print(
                form.replace("{{json .Runtimes}}", json.dumps({"nvidia": {}, "runc": {}})).replace(
                    "{{.DefaultRuntime}}", "nvidia"
                )
            )
        else:
            print("Server Version: stand-in")

    def build(self, words):
        options = {"--build-arg": []}
        while len(words) > 1:
            key, value = words[0], words[1]
            if key not in ("-f", "-t", "--build-arg"):
                fail("unknown flag: " + key)
            options[key] = options[key] + [value] if key == "--build-arg" else value
            words = words[2:]
        arguments = dict(pair.split("=", 1) for pair in options["--build-arg"])
        with open(options["-f"]) as file:
            known = {line.split()[1].split("=")[0] for line in file if line.startswith("ARG ")}
        if set(arguments) - known:
            fail("build arguments that the Dockerfile does not know: " + str(sorted(set(arguments) - known)), 1)
        part = self.image(options["-t"]) + ".part"
        shutil.rmtree(part, ignore_errors=True)
        for number, step in enumerate(("FROM " + arguments["BASE"], "RUN pip", "COPY jetson"), 1):
            print(f"Step {number}/3 : {step}", flush=True)
            time.sleep(0.3)
        shutil.copytree(os.path.join(words[0], "jetson"), os.path.join(part, "jetson"))
        with open(os.path.join(part, "arguments.json"), "w") as file:
            json.dump(arguments, file)
        shutil.rmtree(self.image(options["-t"]), ignore_errors=True)
        os.rename(part, self.image(options["-t"]))

    def image_(self, words):
        if words == ["ls", "--format", "{{.Repository}}:{{.Tag}}", words[-1]]:
            names = [name.replace("@", ":") for name in sorted(os.listdir(self.images)) if not name.endswith(".part")]
            print("\n".join(name for name in names if name.split(":")[0] == words[-1]))
            return
        if words[0] != "inspect" or not os.path.isdir(self.image(words[1])):
            fail("No such image: " + words[-1], 1)

    def rmi(self, words):
        records = [self.record(name[: -len(".json")]) for name in os.listdir(self.containers) if name.endswith(".json")]
        if words[0] != "-f" and any(record and record["words"][0] == words[-1] for record in records):
            fail(f'conflict: unable to remove repository reference "{words[-1]}"', 1)
        shutil.rmtree(self.image(words[-1]), ignore_errors=True)

    def tag(self, words):
        if not os.path.isdir(self.image(words[0])):
            fail("No such image: " + words[0], 1)
        if words[0] != words[1]:
            shutil.rmtree(self.image(words[1]), ignore_errors=True)
            shutil.copytree(self.image(words[0]), self.image(words[1]))

    def save(self, words):
        with tarfile.open(words[words.index("-o") + 1], "w") as tar:
            tar.add(self.image(words[-1]), os.path.basename(self.image(words[-1])))

    def load(self, words):
        with tarfile.open(words[words.index("-i") + 1]) as tar:
            name = tar.getnames()[0]
            tar.extractall(self.images)
        print("Loaded image: " + name.replace("@", ":"))

    def run(self, words):
        flags, detached = [], False
        while words and words[0].startswith("-"):
            if words[0] in VALUES:
                flags.append((words[0], words[1]))
                words = words[2:]
            elif words[0] in ("-d", "--rm", "--read-only"):
                detached = detached or words[0] == "-d"
                flags.append((words[0], None))
                words = words[1:]
            else:
                fail("unknown flag: " + words[0])
        folder = self.image(words[0])
        if not os.path.isdir(folder):
            fail(f"Unable to find image '{words[0]}' locally")
        given = [flag for flag, _ in flags]
        needed = {"--read-only", "--cap-drop", "--security-opt", "--user", "--network"} - set(given)
        if needed:
            fail("this stand-in only runs what is locked down; missing: " + " ".join(sorted(needed)))
        with open(os.path.join(folder, "arguments.json")) as file:
            arguments = json.load(file)
        env = dict(
            os.environ,
            PYTHONPATH=folder,
            JETMASK_EXPECT_GPU=arguments["GPU"],
            OPENBLAS_CORETYPE="ARMV8",
            PYTHONUNBUFFERED="1",
            PYTHONDONTWRITEBYTECODE="1",
            JETMASK_STATE="/var/lib/jetmask",
            JETMASK_ENGINES="/var/lib/jetmask/engines",
        )
        mounts, user, groups = [], "0:0", []
        for flag, value in flags:
            if flag == "--runtime" and value == "nvidia":
                env.update({key: text for key, text in self.gpu.items() if key != "PYTHONPATH"})
                env["PYTHONPATH"] = folder + ":" + self.gpu["PYTHONPATH"]
            elif flag == "-e":
                env.update([value.split("=", 1)])
            elif flag == "--user":
                user = value
            elif flag == "--group-add":
                groups.append(value)
            elif flag == "--device" and not os.path.exists(value.split(":")[0]):
                fail(
                    'error gathering device information while adding custom device "{0}": '
                    "no such file or directory".format(value.split(":")[0])
                )
            elif flag == "-v":
                here, there, *mode = value.split(":")
                if not os.path.exists(here):
                    os.makedirs(here)  # as docker does, to many a user's surprise
                mounts.append(f"mount --bind '{here}' '{there}'")
                if mode == ["ro"]:
                    mounts.append(f"mount -o remount,bind,ro '{there}'")
        uid, gid = user.split(":")
        script = INSIDE.format(
            mounts="\n".join(mounts),
            uid=uid,
            gid=gid,
            groups="--groups " + ",".join(groups) if groups else "--clear-groups",
        )
        line = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            self.python,
            "-m",
            "jetson.container",
        ] + words[1:]
        if not detached:
            os.chdir(folder)
            os.execvpe(line[0], line, env)
        name = dict(flags)["--name"]
        if self.alive(self.record(name)):
            fail(f'Conflict. The container name "/{name}" is already in use')
        if os.fork():
            print("0123456789ab")
            return
        os.setsid()
        path = os.path.join(self.containers, name + ".json")
        with open(path + ".part", "w") as file:
            json.dump({"pid": os.getpid(), "born": born(os.getpid()), "flags": flags, "words": words}, file)
        os.rename(path + ".part", path)
        log = os.open(os.path.join(self.containers, name + ".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        os.chdir(folder)
        os.execvpe(line[0], line, env)

    def rm(self, words):
        record = self.record(words[-1])
        if record is None:
            fail("No such container: " + words[-1], 1)
        end = time.monotonic() + 10
        while self.alive(record) and time.monotonic() < end:
            os.killpg(record["pid"], signal.SIGKILL)
            time.sleep(0.05)
        os.unlink(os.path.join(self.containers, words[-1] + ".json"))

    def inspect(self, words):
        record = self.record(words[-1])
        if record is None:
            fail("No such object: " + words[-1], 1)
        print("true" if self.alive(record) else "false")

    def logs(self, words):
        path = os.path.join(self.containers, words[-1] + ".log")
        if not os.path.exists(path):
            fail("No such container: " + words[-1], 1)
        sys.exit(subprocess.call(["tail", "-n", words[words.index("--tail") + 1], path]))


def born(pid):
    """When the process began; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def main():
    with open(sys.argv[1]) as file:
        docker = Docker(json.load(file))
    command, words = sys.argv[2], sys.argv[3:]
    call = getattr(docker, {"image": "image_"}.get(command, command), None)
    if call is None or command.startswith("_"):
        fail(f"'{command}' is not a docker command", 1)
    call(words)


if __name__ == "__main__":
    main()
