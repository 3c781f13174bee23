#!/bin/sh
# -I: no environment variable or file of the user changes which code runs. -B: root writes no
# compiled files that do not belong to the package; the installation has compiled them.
exec /usr/lib/llmd/bin/python3 -I -B -m llmd "$@"
