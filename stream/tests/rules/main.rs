//! The rules seen from outside, one file for each noun. Group and catalog have theirs beside them,
//! because breaking an invariant on purpose takes private fields.

mod autoscale;
mod batch;
mod command;
mod hash;
mod iterator;
mod listing;
mod load;
mod moves;
mod name;
mod placement;
mod record;
mod scale;
mod scaling;
mod sequence;
mod throttle;
