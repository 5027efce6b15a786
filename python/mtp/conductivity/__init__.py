# SPDX-License-Identifier: BSD-3-Clause
"""Thermal conductivity, with its error."""
