# SPDX-License-Identifier: BSD-3-Clause
from mtp.cli import main

main()
