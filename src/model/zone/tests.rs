//! Questions in, sections out.
