"""The master's mind: intake, dispatch, reports, commands, promote, clock, mirrors, logs."""
