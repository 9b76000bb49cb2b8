//! Every bound of the walk.
