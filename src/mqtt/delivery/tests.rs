//! Delivery by tables, and against a model of a connection and a broker over random events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const WINDOW: usize = 4;

fn message(n: u64, quality: QoS) -> Message {
    Message { quality, ..Message::new("t".to_owned(), n.to_string()) }
}

fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

/// What is handed over until nothing more may be, or something is too large.
fn sent(delivery: &mut Delivery) -> Vec<u64> {
    std::iter::from_fn(|| match delivery.next_step() {
        Next::Send(message) => Some(number_of(&message)),
        _ => None,
    })
    .collect()
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order() {
    let mut delivery = Delivery::new(1 << 20, 3);
    (0..5).for_each(|n| delivery.take(message(n, QoS::AtLeastOnce), Some(n)));
    assert_eq!(delivery.next_step(), Next::Nothing);
    delivery.connected(1000);
    assert_eq!(sent(&mut delivery), [0, 1, 2]);
    (1..=3).for_each(|packet| delivery.numbered(packet));
    assert_eq!(delivery.answered(2), Some((message(1, QoS::AtLeastOnce), Some(1))));
    assert_eq!(delivery.answered(2), None);
    assert_eq!(sent(&mut delivery), [3]);
    delivery.disconnected();
    delivery.connected(1000);
    assert_eq!(sent(&mut delivery), [0, 2, 3]);
}

#[test]
fn what_may_be_lost_is_not_kept_for_later() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.take(message(0, QoS::AtMostOnce), None);
    assert!(delivery.is_empty());
    delivery.connected(1000);
    delivery.take(message(1, QoS::AtMostOnce), None);
    delivery.disconnected();
    assert!(delivery.is_empty() && delivery.bytes == 0);
}

#[test]
fn what_may_be_lost_never_piles_up_before_a_slow_broker() {
    let mut delivery = Delivery::new(1 << 20, 1);
    delivery.connected(1000);
    delivery.take(message(0, QoS::AtLeastOnce), None);
    assert_eq!(sent(&mut delivery), [0]);
    (1..1000).for_each(|n| delivery.take(message(n, QoS::AtMostOnce), None));
    delivery.take(message(1000, QoS::AtLeastOnce), None);
    delivery.numbered(1);
    assert!(delivery.answered(1).is_some());
    let expected: Vec<u64> = (1..=PASSING as u64).chain([1000]).collect();
    assert_eq!(sent(&mut delivery), expected);
}

#[test]
fn a_message_larger_than_the_broker_takes_is_given_back() {
    let mut delivery = Delivery::new(1 << 20, 3);
    delivery.connected(20);
    let large = Message::new("t".to_owned(), vec![0; 30]);
    delivery.take(message(0, QoS::AtLeastOnce), None);
    delivery.take(large.clone(), Some(1));
    delivery.take(message(2, QoS::AtLeastOnce), None);
    assert!(matches!(delivery.next_step(), Next::Send(_)));
    assert_eq!(delivery.next_step(), Next::TooLarge { message: large, number: Some(1), limit: 20 });
    assert_eq!(sent(&mut delivery), [2]);
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    /// A message comes, to be delivered with this quality.
    Take(QoS),
    /// A connection is made, to a broker that has kept our session or has not.
    Connect { session: bool },
    /// The connection breaks; what was under way either way is lost.
    Disconnect,
    /// The connection takes one message.
    Send,
    /// The broker gets the oldest message under way, and acknowledges it.
    Arrive,
    /// The broker refuses the oldest message under way for good.
    Refuse,
    /// What is under way to the broker vanishes, and whatever follows it, until somebody notices.
    Lose,
    /// The youngest or the oldest acknowledgement under way reaches us.
    Acknowledge { youngest: bool },
    /// An acknowledgement that reached us before, or that nobody waits for, comes again.
    Repeat,
    /// We give up waiting: the broker still gets what is under way, its answers reach nobody.
    TimeOut,
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let quality = prop_oneof![
        4 => Just(QoS::AtLeastOnce),
        2 => Just(QoS::ExactlyOnce),
        1 => Just(QoS::AtMostOnce),
    ];
    prop_oneof![
        6 => quality.prop_map(Take),
        2 => any::<bool>().prop_map(|session| Connect { session }),
        1 => Just(Disconnect),
        8 => Just(Send),
        6 => Just(Arrive),
        1 => Just(Refuse),
        1 => Just(Lose),
        6 => any::<bool>().prop_map(|youngest| Acknowledge { youngest }),
        2 => Just(Repeat),
        1 => Just(TimeOut),
    ]
}

/// What a broker and a connection may do to the messages.
struct Model {
    delivery: Delivery,
    taken: u64,
    /// Those that must arrive.
    owed: BTreeSet<u64>,
    /// On their way to the broker, with their packet identifiers.
    under_way: VecDeque<(u16, u64)>,
    /// Acknowledgements and refusals on their way to us.
    answers: VecDeque<u16>,
    refused: BTreeSet<u64>,
    /// At the broker, in the order in which each came first.
    arrived: Vec<u64>,
    /// What we were told of each number.
    told: BTreeMap<u64, usize>,
    packet: u16,
    /// Whether what is sent on this connection reaches nobody any more.
    stalled: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            delivery: Delivery::new(1 << 20, WINDOW),
            taken: 0,
            owed: BTreeSet::new(),
            under_way: VecDeque::new(),
            answers: VecDeque::new(),
            refused: BTreeSet::new(),
            arrived: Vec::new(),
            told: BTreeMap::new(),
            packet: 0,
            stalled: false,
        }
    }

    fn step(&mut self, event: Happens) {
        match event {
            Happens::Take(quality) => {
                self.delivery.take(message(self.taken, quality), Some(self.taken));
                if quality != QoS::AtMostOnce {
                    self.owed.insert(self.taken);
                }
                self.taken += 1;
            }
            Happens::Connect { session } => self.connect(session),
            Happens::Disconnect => self.cut(),
            Happens::Send => self.send(),
            Happens::Arrive => self.arrive(),
            Happens::Refuse => {
                if let Some((packet, number)) = self.next_at_the_broker().filter(|(packet, _)| *packet > 0) {
                    self.refused.insert(number);
                    self.answers.push_back(packet);
                }
            }
            Happens::Lose => self.stalled = true,
            Happens::Acknowledge { youngest } => {
                let answer = if youngest { self.answers.pop_back() } else { self.answers.pop_front() };
                answer.into_iter().for_each(|packet| self.hear(packet));
            }
            Happens::Repeat => assert_eq!(self.delivery.answered(u16::MAX), None),
            Happens::TimeOut => {
                while !self.under_way.is_empty() {
                    self.arrive();
                }
                self.cut();
            }
        }
        self.check();
    }

    /// With a session or without one, everything that is not acknowledged is sent again.
    fn connect(&mut self, session: bool) {
        self.cut();
        self.delivery.connected(1000);
        if !session {
            self.packet = 0;
        }
    }

    fn cut(&mut self) {
        self.delivery.disconnected();
        self.under_way.clear();
        self.answers.clear();
        self.stalled = false;
    }

    fn send(&mut self) {
        let Next::Send(message) = self.delivery.next_step() else { return };
        let number = number_of(&message);
        if message.quality == QoS::AtMostOnce {
            self.under_way.push_back((0, number));
            return;
        }
        self.packet = self.packet % 1000 + 1;
        self.delivery.numbered(self.packet);
        assert_eq!(number_of(self.delivery.in_flight(self.packet).unwrap()), number);
        self.under_way.push_back((self.packet, number));
    }

    fn next_at_the_broker(&mut self) -> Option<(u16, u64)> {
        self.under_way.pop_front().filter(|_| !self.stalled)
    }

    fn arrive(&mut self) {
        let Some((packet, number)) = self.next_at_the_broker() else { return };
        if packet > 0 {
            self.answers.push_back(packet);
            if !self.arrived.contains(&number) {
                self.arrived.push(number);
            }
        }
    }

    fn hear(&mut self, packet: u16) {
        let (message, number) = self.delivery.answered(packet).unwrap();
        assert_eq!(number, Some(number_of(&message)));
        *self.told.entry(number.unwrap()).or_default() += 1;
        // The same acknowledgement once more says nothing.
        assert_eq!(self.delivery.answered(packet), None);
    }

    fn check(&self) {
        let waiting = self.delivery.waiting.iter().map(|held| held.message.packet_size());
        let in_flight = self.delivery.in_flight.iter().map(|m| m.held.message.packet_size());
        assert_eq!(waiting.chain(in_flight).sum::<usize>(), self.delivery.bytes);
        assert!(self.delivery.in_flight.len() <= WINDOW);
        let passing = self.delivery.waiting.iter().filter(|held| held.message.quality == QoS::AtMostOnce);
        assert_eq!(passing.count(), self.delivery.passing);
        for (number, times) in &self.told {
            assert_eq!(*times, 1, "{number} was told {times} times");
            assert!(
                self.arrived.contains(number) || self.refused.contains(number),
                "{number} is told and lost"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens, each message that must arrive does, or is refused aloud; each is told
    /// once, no sooner than the broker has it; and they come first in the order in which they were taken.
    #[test]
    fn nothing_is_lost_over_any_sequence_of_events(events in prop::collection::vec(happens(), 1..200)) {
        let mut model = Model::new();
        events.into_iter().for_each(|event| model.step(event));
        model.step(Happens::Connect { session: false });
        while !model.delivery.is_empty() {
            model.step(Happens::Send);
            model.step(Happens::Arrive);
            model.step(Happens::Acknowledge { youngest: false });
        }
        let told: BTreeSet<u64> = model.told.keys().copied().collect();
        prop_assert_eq!(&told, &model.owed);
        let lost: Vec<_> = model.owed.iter().filter(|n| !model.arrived.contains(n) && !model.refused.contains(n)).collect();
        prop_assert!(lost.is_empty(), "{:?}", lost);
        // One that was refused once and taken after a reconnection comes out of its turn.
        let in_turn: Vec<_> = model.arrived.iter().filter(|n| !model.refused.contains(n)).collect();
        prop_assert!(in_turn.is_sorted(), "{:?}", in_turn);
    }
}
