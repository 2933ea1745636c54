//! What the network does to each directed link, as data. Faults lay their wishes over it as named
//! layers, so that overlapping faults heal independently of each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// Who sits at an end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Port {
    /// A member, by its place.
    Member(usize),
    /// All clients of this program.
    Clients,
    /// All fake workers.
    Workers,
}

impl Port {
    /// Its place in tables: members first.
    pub(crate) fn index(self, members: usize) -> usize {
        match self {
            Self::Member(place) => place,
            Self::Clients => members,
            Self::Workers => members + 1,
        }
    }
}

/// What happens to what is sent over one directed link. All zero: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Nothing arrives.
    pub cut: bool,
    /// Lost, of a hundred.
    pub loss_percent: u8,
    /// Sent twice, of a hundred.
    pub duplicate_percent: u8,
    /// Arrives this much later.
    pub delay_ms: u32,
    /// And up to this much more, each frame for itself: frames overtake each other.
    pub jitter_ms: u32,
    /// At most this many kilobits per second; 0 is no limit.
    pub rate_kbit: u32,
}

impl Shape {
    pub(crate) const CUT: Self = Self {
        cut: true,
        loss_percent: 0,
        duplicate_percent: 0,
        delay_ms: 0,
        jitter_ms: 0,
        rate_kbit: 0,
    };

    /// Whether more is asked than dropping and limiting, which a bridge can do.
    pub(crate) fn needs_queue(&self) -> bool {
        self.delay_ms > 0 || self.jitter_ms > 0 || self.duplicate_percent > 0
    }

    /// Both wishes at once: the worse of each.
    fn merge(self, other: Self) -> Self {
        let rate = match (self.rate_kbit, other.rate_kbit) {
            (0, rate) | (rate, 0) => rate,
            (one, two) => one.min(two),
        };
        Self {
            cut: self.cut || other.cut,
            loss_percent: self.loss_percent.max(other.loss_percent),
            duplicate_percent: self.duplicate_percent.max(other.duplicate_percent),
            delay_ms: self.delay_ms.max(other.delay_ms),
            jitter_ms: self.jitter_ms.max(other.jitter_ms),
            rate_kbit: rate,
        }
    }
}

/// A directed link: from, to.
pub(crate) type Link = (Port, Port);

/// What was done to frames so far, to prove that a fault took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub passed: u64,
    pub dropped: u64,
    pub delayed: u64,
    pub duplicated: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            passed: self.passed.saturating_sub(before.passed),
            dropped: self.dropped.saturating_sub(before.dropped),
            delayed: self.delayed.saturating_sub(before.delayed),
            duplicated: self.duplicated.saturating_sub(before.duplicated),
        }
    }
}

/// Counters that a switch adds to while others read them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub passed: AtomicU64,
    pub dropped: AtomicU64,
    pub delayed: AtomicU64,
    pub duplicated: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        Counts {
            passed: self.passed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            delayed: self.delayed.load(Ordering::Relaxed),
            duplicated: self.duplicated.load(Ordering::Relaxed),
        }
    }
}

/// The shapes of all directed links, as a square table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matrix {
    members: usize,
    shapes: Vec<Shape>,
}

impl Matrix {
    pub(crate) fn new(members: usize) -> Self {
        let ports = members + 2;
        Self { members, shapes: vec![Shape::default(); ports * ports] }
    }

    pub(crate) fn ports(&self) -> usize {
        self.members + 2
    }

    /// By the places of the ports in tables.
    pub(crate) fn at(&self, from: usize, to: usize) -> Shape {
        self.shapes[from * self.ports() + to]
    }

    fn lay(&mut self, (from, to): Link, shape: Shape) {
        let place = from.index(self.members) * self.ports() + to.index(self.members);
        self.shapes[place] = self.shapes[place].merge(shape);
    }

    /// Every link that is not left alone, by places.
    pub(crate) fn touched(&self) -> impl Iterator<Item = (usize, usize, Shape)> {
        let ports = self.ports();
        let all = self.shapes.iter().enumerate();
        all.filter(|(_, shape)| **shape != Shape::default())
            .map(move |(place, shape)| (place / ports, place % ports, *shape))
    }
}

/// What one fault does to links.
type Layer = Vec<(Link, Shape)>;

/// The layers that are laid at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    members: usize,
    layers: Arc<Mutex<BTreeMap<u64, Layer>>>,
}

impl Layers {
    pub(crate) fn new(members: usize) -> Self {
        Self { members, layers: Arc::default() }
    }

    /// Adds a layer; the result is the whole network with it.
    pub(crate) fn add(&self, name: u64, links: Layer) -> Matrix {
        let mut layers = self.layers.lock();
        layers.insert(name, links);
        self.matrix(&layers)
    }

    /// Takes a layer away.
    pub(crate) fn remove(&self, name: u64) -> Matrix {
        let mut layers = self.layers.lock();
        layers.remove(&name);
        self.matrix(&layers)
    }

    pub(crate) fn clear(&self) -> Matrix {
        let mut layers = self.layers.lock();
        layers.clear();
        self.matrix(&layers)
    }

    fn matrix(&self, layers: &BTreeMap<u64, Layer>) -> Matrix {
        let mut matrix = Matrix::new(self.members);
        for (link, shape) in layers.values().flatten() {
            matrix.lay(*link, *shape);
        }
        matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_heal_independently() {
        let layers = Layers::new(3);
        let (a, b) = (Port::Member(0), Port::Member(1));
        let slow = Shape { delay_ms: 50, ..Shape::default() };
        layers.add(1, vec![((a, b), Shape::CUT), ((b, a), Shape::CUT)]);
        let both = layers.add(2, vec![((a, b), slow), ((a, Port::Clients), slow)]);
        assert!(both.at(0, 1).cut && both.at(0, 1).delay_ms == 50);
        assert_eq!(both.touched().count(), 3);
        let slow_only = layers.remove(1);
        assert_eq!(slow_only.touched().collect::<Vec<_>>(), [(0, 1, slow), (0, 3, slow)]);
        assert_eq!(layers.clear(), Matrix::new(3));
    }

    #[test]
    fn the_worse_wish_wins() {
        let one = Shape { rate_kbit: 100, loss_percent: 5, ..Shape::default() };
        let two = Shape { rate_kbit: 64, loss_percent: 1, jitter_ms: 3, ..Shape::default() };
        let both = Shape { rate_kbit: 64, loss_percent: 5, jitter_ms: 3, ..Shape::default() };
        assert_eq!(one.merge(two), both);
        assert_eq!(one.merge(Shape::default()), one);
        assert!(both.needs_queue() && !one.needs_queue());
    }
}
