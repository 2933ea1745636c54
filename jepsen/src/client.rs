//! One call to one member, and how it ended.
