//! Members of a real cluster in one process: real TCP, real data directories.

mod founding;
mod house;
mod membership;
