//! The zones' writer: what is kept, what is shown, what survives.
