//! Which entries of a container's tree a backup leaves out: docs/EXCLUDE.md.
