"""An experiment from its file to its report: what a script calls, point by point."""
