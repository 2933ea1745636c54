//! Tests of this room: the plans as properties and tables, the ladder against small real nodes,
//! the guard and the whole against [`super::solo`].

mod bots;
mod calendars;
mod calls;
mod choosing;
mod guarding;
mod ledger;
mod mailing;
mod nodes;
mod placing;
mod probing;
mod queueing;
mod reasons;
mod stepping;
mod taking_back;
mod telling;
mod waiting;
mod watching;
mod workflows;
mod working;
