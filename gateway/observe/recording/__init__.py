"""What was said with the workers, recorded for `agent-worker replay`: see `recorder`."""

from gateway.observe.recording.recorder import Header, Recorder, Tape, recording

__all__ = ["Header", "Recorder", "Tape", "recording"]
