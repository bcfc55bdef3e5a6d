"""Looks for known vulnerabilities of what is installed, where the package index can be asked.

Exit code 1 if a package that stabletune itself asks for has one. One of a package further down is printed and no more:
it is mended by others. Where there is no network or no data, that is printed and the exit code is 0.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

PATIENCE_SECONDS = 180
COMMAND = ("-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--timeout", "10", "--format", "json")


class NoData(Exception):
    """Nothing could be learnt of any package."""


def direct_names(requirements: Iterable[str]) -> set[str]:
    """The packages that users get with stabletune or one of its extras; the tools of ``dev`` are not among them."""
    asked = (r for r in requirements if not re.search(r"extra == ['\"]dev['\"]", r))
    return {_normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in asked}


def judge(packages: list[dict[str, Any]], direct: set[str]) -> tuple[list[str], bool]:
    """What to print of a report, and whether it fails.

    Raises:
        NoData: no package of it was looked up.
    """
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        first = packages[0]["skip_reason"] if packages else "no package is installed"
        raise NoData(f"the index has no data of any package. The first: {first}")
    vulnerable = [package for package in known if package["vulns"]]
    said = [f"audit: {len(known)} of {len(packages)} packages looked up, {len(vulnerable)} of them vulnerable"]
    for package in vulnerable:
        ids = ", ".join(v["id"] + f" (mended in {' or '.join(v['fix_versions']) or 'none'})" for v in package["vulns"])
        whose = "asked for by stabletune" if _normal(package["name"]) in direct else "of others, not failed for"
        said.append(f"audit: {package['name']} {package['version']}, {whose}: {ids}")
    missed = sorted(direct - {_normal(package["name"]) for package in known})
    if missed:
        said.append(f"audit: NOT LOOKED UP: {', '.join(missed)}")
    return said, any(_normal(package["name"]) in direct for package in vulnerable)


def report() -> list[dict[str, Any]]:
    """What pip-audit says of each installed package; raises NoData where it ends without saying."""
    try:
        done = subprocess.run([sys.executable, *COMMAND], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise NoData(f"no answer within {PATIENCE_SECONDS} s") from error
    except (ValueError, KeyError) as error:
        raise NoData((done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]) from error
    return packages


def main() -> int:
    try:
        said, has_failed = judge(report(), direct_names(importlib.metadata.requires("stabletune") or []))
    except NoData as error:
        print(f"audit: SKIPPED, vulnerabilities were not looked for: {error}")
        return 0
    print("\n".join(said))
    return int(has_failed)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
