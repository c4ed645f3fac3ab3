//! Configuration: raw form to checked form, one per role; every fault reported with its place.
