//! Histories as EDN, for Knossos and Elle.
