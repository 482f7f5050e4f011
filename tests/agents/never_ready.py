"""Would be ready in an hour: it says nothing, and reads nothing."""

import time

time.sleep(3600)
