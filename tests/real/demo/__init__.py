"""The whole chain on real parts: what `scripts/demo.sh` shows, and the world that the story tests share."""
