#!/bin/sh
# -I: no variable and no file of the user changes which code runs.
exec /usr/lib/llmd/bin/python3 -I -m llmd "$@"
