//! A DNS zone and the answers it gives.
