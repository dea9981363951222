"""Reports of runs: one HTML page that needs neither network nor script, with its pictures inside."""

from __future__ import annotations

from xpnet.reports.page import report_page
from xpnet.reports.subject import Subject, check_one_task

__all__ = ["Subject", "check_one_task", "report_page"]
