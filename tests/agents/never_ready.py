"""Sleeps for an hour: it writes nothing and reads nothing."""

import time

time.sleep(3600)
