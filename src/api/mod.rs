//! The doors.

mod fragment;
mod object;
mod web4ai;
mod wire_time;
