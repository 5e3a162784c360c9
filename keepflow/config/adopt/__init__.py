"""One file per format of another system: source nodes → parts of a flow file, and what could not be carried over."""
