"""Where the cluster's programs come from: a folder you name, or Go modules compiled once into a cache."""

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .locking import only_one
from .messages import ClusterError, Say, Unavailable

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NODE = ("kubelet", "fake-gpu-plugin", "forward-tcp", "pause")


@dataclass(frozen=True)
class Module:
    """A Go module of ours that pins what is compiled: its requirements and checksums are committed beside it."""

    name: str
    requirement: str
    """The module whose version names the cache folder and is compiled in."""
    packages: str
    version_variables: dict[str, str]
    """Where the programs keep the version they report, as templates of its parts."""
    links: tuple[str, ...] = ()
    """The names that the one compiled binary answers to."""
    folders: tuple[str, ...] = ()
    """Folders of the required module that are kept beside the programs."""

    @property
    def source(self) -> Path:
        return Path(__file__).parent / self.name

    @property
    def version(self) -> str:
        found = re.search(rf"{re.escape(self.requirement)} (v\S+)", (self.source / "go.mod").read_text())
        if not found:
            raise ClusterError(f"{self.source}/go.mod does not require {self.requirement}: restore it from git")
        return found[1]

    @property
    def fingerprint(self) -> str:
        files = sorted(path for path in self.source.rglob("*") if path.suffix in {".go", ".mod", ".sum"})
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    @property
    def linker_flags(self) -> str:
        major, minor, patch = self.version.removeprefix("v").split(".")
        variables = self.version_variables.items()
        values = (f"{name}={value.format(major=major, minor=minor, patch=patch)}" for name, value in variables)
        return " ".join(["-s -w", *(f"-X {value}" for value in values)])


KUBERNETES = Module(
    "kubernetes",
    "k8s.io/kubernetes",
    "./...",
    {
        "k8s.io/component-base/version.gitVersion": "v{major}.{minor}.{patch}",
        "k8s.io/component-base/version.gitMajor": "{major}",
        "k8s.io/component-base/version.gitMinor": "{minor}",
    },
    links=(*CONTROL_PLANE, "kubelet", "fake-gpu-plugin", "forward-tcp"),
)
HELM = Module(
    "helm", "helm.sh/helm/v4", "tool", {"helm.sh/helm/v4/internal/version.version": "v{major}.{minor}.{patch}"}
)

KUEUE = Module(
    "kueue",
    "sigs.k8s.io/kueue",
    "tool",
    {"sigs.k8s.io/kueue/pkg/version.GitVersion": "v{major}.{minor}.{patch}"},
    folders=("config/components/crd/bases", "config/components/webhook"),
)


def find(programs: tuple[str, ...], say: Say) -> Path:
    """Give the folder that holds all the programs, compiling them when nobody has yet."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return _complete(Path(assets), programs)
    return compiled(KUBERNETES, say)


def ready(module: Module) -> bool:
    """Tell whether a module is compiled already, or need not be."""
    if module is KUBERNETES and os.environ.get("KUBEBUILDER_ASSETS"):
        return True
    stamp = _cache(module) / module.version / "built-from"
    return stamp.exists() and stamp.read_text() == module.fingerprint


def helm(say: Say) -> Path:
    """Give a Helm: the one on the PATH, or one compiled for the tests."""
    return Path(found) if (found := shutil.which("helm")) else compiled(HELM, say) / "helm"


def kubectl(say: Say) -> Path:
    """Give a kubectl for a cluster that is not ours: any will do, so the one on the PATH comes first."""
    return Path(found) if (found := shutil.which("kubectl")) else find(("kubectl",), say) / "kubectl"


def compiled(module: Module, say: Say) -> Path:
    """Give the cache folder with the module's programs, after compiling them if it is not up to date."""
    cache = _cache(module)
    folder = cache / module.version
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(cache / "lock", say):
        stamp = folder / "built-from"
        if not stamp.exists() or stamp.read_text() != module.fingerprint:
            _compile(module, folder, say)
            stamp.write_text(module.fingerprint)
    return folder


def _cache(module: Module) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / module.name


def _complete(folder: Path, programs: tuple[str, ...]) -> Path:
    missing = [program for program in programs if not os.access(folder / program, os.X_OK)]
    if missing:
        raise Unavailable(
            f"KUBEBUILDER_ASSETS={folder} has no {', '.join(missing)}: put the same version's there, "
            "or unset KUBEBUILDER_ASSETS and everything is compiled from Go modules, once"
        )
    return folder


def _compile(module: Module, folder: Path, say: Say) -> None:
    say(f"compiling {module.name} {module.version} from Go modules into {folder}: once, and it takes minutes")
    began = time.monotonic()
    _download(module)
    fresh = folder / "fresh"
    done = _go(module, "build", "-trimpath", "-buildvcs=false", "-ldflags", module.linker_flags,
               "-o", f"{fresh}/", module.packages)  # fmt: skip
    if done.returncode:
        raise ClusterError(f"compiling {module.name} failed:\n{_end(done.stderr)}\nCheck {module.source}/go.mod.")
    for program in fresh.iterdir():
        program.replace(folder / program.name)  # in one step: a running cluster keeps the old file
    fresh.rmdir()
    _keep_folders(module, folder)
    for link in module.links:
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(module.name)
    say(f"compiled {module.name} in {time.monotonic() - began:.0f} s")


def _keep_folders(module: Module, folder: Path) -> None:
    if not module.folders:
        return
    source = Path(_go(module, "list", "-m", "-f", "{{.Dir}}", module.requirement).stdout.strip())
    for name in module.folders:
        kept = folder / Path(name).name
        kept.mkdir(exist_ok=True)
        for file in (source / name).iterdir():
            shutil.copyfile(file, kept / file.name)  # without its mode: the module cache is read-only


def _download(module: Module) -> None:
    """Fetch the modules apart from compiling: a machine that cannot reach them is no fault of the code."""
    if shutil.which("go") is None:
        raise Unavailable(
            f"{module.name} {module.version} is not in the cache and there is no Go to compile it: "
            "install Go, set KUBEBUILDER_ASSETS, or set HEADRACE_TEST_KUBECONFIG to a cluster of yours"
        )
    done = _go(module, "list", "-deps", "-f", "{{.ImportPath}}", module.packages)
    if done.returncode:
        raise Unavailable(
            f"the Go modules of {module.name} {module.version} cannot be had: {_end(done.stderr)}\n"
            f"Try `go list -deps {module.packages}` in {module.source}; `go env GOPROXY` says where modules come from"
        )


def _go(module: Module, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CGO_ENABLED": "0"}  # pods run these files on any C library, or on none
    command = ["nice", "-n", "10", "go", *arguments]
    return subprocess.run(command, cwd=module.source, env=environment, capture_output=True, text=True, check=False)


def _end(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-10:])
