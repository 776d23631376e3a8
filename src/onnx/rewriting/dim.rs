//! Lengths of axes, some of which depend on the graph's inputs.

use std::collections::HashMap;

/// The length of an axis, or an integer that a graph computes from lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dim {
    /// A number.
    Known(i64),
    /// Depends on the graph's inputs. Equal symbols are equal numbers.
    Symbol(usize),
}

/// An operation on integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

/// Products of more symbols are not looked into.
const MAX_FACTORS: usize = 32;

/// What a symbol stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Definition {
    /// An axis that the graph names.
    Axis(String),
    /// A number times symbols in ascending order.
    Product(i64, Vec<usize>),
    /// The result of an operation that does not simplify.
    Result(Arithmetic, Dim, Dim),
    /// A number of which nothing is known.
    Unknown(usize),
}

/// The symbols of one graph. Equal definitions have one symbol.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    definitions: Vec<Definition>,
    /// For each symbol, whether it is certainly not negative.
    lengths: Vec<bool>,
    ids: HashMap<Definition, usize>,
}

impl Dim {
    /// The number, if it does not depend on the graph's inputs.
    pub(super) fn known(self) -> Option<i64> {
        match self {
            Self::Known(value) => Some(value),
            Self::Symbol(_) => None,
        }
    }
}

impl Symbols {
    /// The length of an axis with this name.
    pub(super) fn axis(&mut self, name: &str) -> Dim {
        self.intern(Definition::Axis(name.to_owned()))
    }

    /// A number of which nothing is known.
    pub(super) fn unknown(&mut self) -> Dim {
        self.intern(Definition::Unknown(self.definitions.len()))
    }

    /// The result of an operation. Division rounds towards zero.
    pub(super) fn compute(&mut self, operation: Arithmetic, a: Dim, b: Dim) -> Dim {
        let simple = match (operation, a, b) {
            (_, Dim::Known(a), Dim::Known(b)) => match operation {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Sub => a.checked_sub(b),
                Arithmetic::Mul => a.checked_mul(b),
                Arithmetic::Div => a.checked_div(b),
            }
            .map(Dim::Known),
            (Arithmetic::Add, Dim::Known(0), other)
            | (Arithmetic::Add | Arithmetic::Sub, other, Dim::Known(0)) => Some(other),
            (Arithmetic::Sub, a, b) if a == b => Some(Dim::Known(0)),
            (Arithmetic::Mul, a, b) => self.product(a, b),
            (Arithmetic::Div, a, b) => self.quotient(a, b),
            _ => None,
        };
        let (a, b) = if operation == Arithmetic::Add { (a.min(b), a.max(b)) } else { (a, b) };
        simple.unwrap_or_else(|| self.intern(Definition::Result(operation, a, b)))
    }

    /// The product of lengths.
    pub(super) fn total(&mut self, dims: &[Dim]) -> Dim {
        dims.iter().fold(Dim::Known(1), |total, dim| self.compute(Arithmetic::Mul, total, *dim))
    }

    /// Whether a number is certainly not negative, because it is made of lengths.
    pub(super) fn is_length(&self, dim: Dim) -> bool {
        match dim {
            Dim::Known(value) => value >= 0,
            Dim::Symbol(id) => self.lengths[id],
        }
    }

    fn intern(&mut self, definition: Definition) -> Dim {
        if let Some(id) = self.ids.get(&definition) {
            return Dim::Symbol(*id);
        }
        let id = self.definitions.len();
        self.lengths.push(match &definition {
            Definition::Axis(_) => true,
            Definition::Product(factor, symbols) => {
                *factor >= 0 && symbols.iter().all(|symbol| self.lengths[*symbol])
            }
            Definition::Result(Arithmetic::Sub, ..) | Definition::Unknown(_) => false,
            Definition::Result(_, a, b) => self.is_length(*a) && self.is_length(*b),
        });
        self.definitions.push(definition.clone());
        self.ids.insert(definition, id);
        Dim::Symbol(id)
    }

    fn product(&mut self, a: Dim, b: Dim) -> Option<Dim> {
        let ((factor, mut symbols), (other, others)) = (self.factors(a), self.factors(b));
        symbols.extend(others);
        symbols.sort_unstable();
        let factor = factor.checked_mul(other).filter(|_| symbols.len() <= MAX_FACTORS)?;
        Some(self.monomial(factor, symbols))
    }

    /// `None` if the division leaves a remainder, or could.
    fn quotient(&mut self, a: Dim, b: Dim) -> Option<Dim> {
        let ((factor, mut symbols), (divisor, divisors)) = (self.factors(a), self.factors(b));
        if factor.checked_rem(divisor)? != 0 {
            return None;
        }
        for symbol in divisors {
            let position = symbols.iter().position(|other| *other == symbol)?;
            symbols.remove(position);
        }
        Some(self.monomial(factor / divisor, symbols))
    }

    fn factors(&self, dim: Dim) -> (i64, Vec<usize>) {
        match dim {
            Dim::Known(value) => (value, Vec::new()),
            Dim::Symbol(id) => match &self.definitions[id] {
                Definition::Product(factor, symbols) => (*factor, symbols.clone()),
                _ => (1, vec![id]),
            },
        }
    }

    fn monomial(&mut self, factor: i64, symbols: Vec<usize>) -> Dim {
        match (factor, &symbols[..]) {
            (0, _) | (_, []) => Dim::Known(factor),
            (1, [symbol]) => Dim::Symbol(*symbol),
            _ => self.intern(Definition::Product(factor, symbols)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_one_symbol() {
        let mut symbols = Symbols::default();
        let (height, width) = (symbols.axis("height"), symbols.axis("width"));
        let area = symbols.total(&[height, width]);
        assert_eq!(area, symbols.total(&[width, height]));
        let tokens = symbols.total(&[Dim::Known(8), area, Dim::Known(40)]);
        let rows = symbols.total(&[Dim::Known(320), width]);
        assert_eq!(symbols.compute(Arithmetic::Div, tokens, rows), height);
        assert_ne!(symbols.unknown(), symbols.unknown());
    }

    #[test]
    fn what_does_not_simplify_is_remembered() {
        let mut symbols = Symbols::default();
        let height = symbols.axis("height");
        let half = symbols.compute(Arithmetic::Div, height, Dim::Known(2));
        assert_eq!(half, symbols.compute(Arithmetic::Div, height, Dim::Known(2)));
        let less = symbols.compute(Arithmetic::Sub, height, Dim::Known(1));
        assert!(symbols.is_length(half) && !symbols.is_length(less));
        assert_eq!(symbols.compute(Arithmetic::Div, Dim::Known(7), Dim::Known(2)), Dim::Known(3));
        assert_eq!(symbols.compute(Arithmetic::Sub, half, half), Dim::Known(0));
    }
}
