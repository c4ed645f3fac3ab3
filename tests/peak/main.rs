//! `funicular peak` as its clients and its operator meet it: the program itself, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

mod answers;
mod bed;
mod life;
