//! Workload tokens: what they claim and what that permits.
