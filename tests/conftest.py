"""Keeps what happens to be in the environment of a machine out of the tests and of all that they start."""

from __future__ import annotations

import os

# Servers of tests are on this machine, where no proxy could find them.
_HERE = "127.0.0.1,localhost"
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), _HERE)))
# Some terminals tell programs how to print; who wants to test that says so.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)
