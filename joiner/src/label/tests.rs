use flywheel_schemas::contract::{Aggregate, Contract, Ids, Label, LabelOwner, Sampling, Scalar, Seal, SealWhen};
use flywheel_schemas::types::Type;
use proptest::prelude::*;

use super::*;

pub(crate) mod naive;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
/// The event time of the prediction in all cases, in milliseconds.
const P_MS: i64 = 1_357_034_400_123;

fn label(name: &str, ty: Type, aggregate: Aggregate) -> Label {
    Label {
        name: name.to_owned(),
        ty,
        description: None,
        unit: None,
        window_ms: 12 * HOUR_MS,
        lateness_ms: HOUR_MS,
        aggregate,
        default: None,
        requires: None,
        owner: LabelOwner::Streaming,
        gate: None,
    }
}

pub(crate) fn contract(labels: Vec<Label>) -> Contract {
    Contract {
        model: "m".to_owned(),
        version: 1,
        owner: None,
        description: None,
        successor_of: None,
        entity: vec![],
        views: vec![],
        features: vec![],
        prediction: vec![],
        decision: vec![],
        context: vec![],
        labels,
        seal: Seal { when: SealWhen::AllClosed, grid_ms: 5 * MINUTE_MS, drain_ms: 10 * MINUTE_MS, horizon_ms: HOUR_MS },
        ids: Ids::Minted,
        sampling: Sampling { rate: 1.0, key: "prediction_id".to_owned(), keep: vec![] },
        point_in_time: None,
        dead_letter_body: false,
    }
}

/// An assert for label `l` of an event that happened and was received `after_ms` after the prediction.
fn says(event_id: &str, after_ms: i64, value: Scalar) -> Statement {
    Statement {
        event_id: event_id.to_owned(),
        outcome_id: event_id.to_owned(),
        revision: 0,
        op: Op::Assert,
        op_time_us: 0,
        event_time_us: (P_MS + after_ms) * 1000,
        ingest_time_ms: P_MS + after_ms,
        partition: 0,
        offset: after_ms,
        contract_version: None,
        labels: vec![],
        values: vec![("l".to_owned(), value)],
    }
}

fn of_fact(outcome_id: &str, statement: Statement) -> Statement {
    Statement { outcome_id: outcome_id.to_owned(), ..statement }
}

fn retracts(event_id: &str, outcome_id: &str, labels: &[&str], after_ms: i64) -> Statement {
    let statement = of_fact(outcome_id, says(event_id, after_ms, Scalar::Boolean(true)));
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Statement { op: Op::Retract, values: vec![], labels, ..statement }
}

const SERVED_P: Prediction = Prediction { event_time_ms: P_MS, exposure: None };
/// A tick after the close of a window of 12 h and a lateness of 1 h.
const CLOSED_MS: i64 = P_MS + 13 * HOUR_MS;

/// The state of the one label `l`.
fn at(tick_ms: i64, label: Label, statements: &[Statement]) -> LabelState {
    evaluate(&contract(vec![label]), &SERVED_P, tick_ms, statements).remove(0)
}

fn closed(aggregate: Aggregate, ty: Type, statements: &[Statement]) -> LabelState {
    at(CLOSED_MS, label("l", ty, aggregate), statements)
}

fn long(aggregate: Aggregate, statements: &[Statement]) -> Option<i64> {
    match closed(aggregate, Type::Long, statements).value {
        Some(Scalar::Long(value)) => Some(value),
        None => None,
        other => panic!("{other:?}"),
    }
}

use Scalar::{Boolean, Decimal, Double, Int, Long};

#[test]
fn only_what_was_known_before_the_tick_counts() {
    let received = [says("a", HOUR_MS, Long(1))];
    let at = |tick_ms| at(tick_ms, label("l", Type::Long, Aggregate::Last), &received);
    assert_eq!(at(P_MS + HOUR_MS).value, None);
    assert_eq!(at(P_MS + HOUR_MS + 1).value, Some(Long(1)));
}

#[test]
fn of_copies_the_first_in_the_log_counts() {
    let first = says("a", HOUR_MS, Long(1));
    for (ingest, partition, offset) in [(1, -5, -5), (0, 1, -5), (0, 0, 1)] {
        let copy = Statement {
            ingest_time_ms: first.ingest_time_ms + ingest,
            partition: first.partition + partition,
            offset: first.offset + offset,
            // A greater revision does not help a copy.
            revision: 9,
            ..says("a", HOUR_MS, Long(2))
        };
        assert_eq!(long(Aggregate::Last, &[copy.clone(), first.clone()]), Some(1), "{copy:?}");
        assert_eq!(long(Aggregate::Last, &[first.clone(), copy]), Some(1));
    }
}

#[test]
fn of_statements_of_a_fact_the_greatest_counts() {
    let old = Statement { revision: 1, op_time_us: 5, ..of_fact("", says("b", HOUR_MS, Long(1))) };
    for (revision, op_time_us, event_id, wins) in [
        (2, 0, "a", true),
        (1, 6, "a", true),
        (1, 5, "c", true),
        (1, 5, "a", false),
        (1, 4, "c", false),
        (0, 9, "c", false),
    ] {
        let new = Statement { revision, op_time_us, ..of_fact("", says(event_id, 2 * HOUR_MS, Long(2))) };
        let expected = Some(if wins { 2 } else { 1 });
        // By `first`, which would take the old one if both counted.
        assert_eq!(long(Aggregate::First, &[old.clone(), new.clone()]), expected, "{new:?}");
        assert_eq!(long(Aggregate::Count, &[new.clone(), old.clone()]), Some(1));
    }
}

#[test]
fn facts_are_replaced_per_label() {
    let labels = vec![label("l", Type::Long, Aggregate::Last), label("other", Type::Long, Aggregate::Last)];
    let mut newer = Statement { revision: 1, ..of_fact("", says("b", HOUR_MS, Long(2))) };
    newer.values = vec![("other".to_owned(), Long(3))];
    let states = evaluate(&contract(labels), &SERVED_P, CLOSED_MS, &[of_fact("", says("a", HOUR_MS, Long(1))), newer]);
    assert_eq!((&states[0].value, &states[1].value), (&Some(Long(1)), &Some(Long(3))));
}

#[test]
fn a_retract_takes_back_what_it_names_and_may_come_first() {
    let said = of_fact("f", says("a", 2 * HOUR_MS, Long(1)));
    let with = |retract: Statement| long(Aggregate::Last, &[Statement { revision: 1, ..retract }, said.clone()]);
    assert_eq!(with(retracts("r", "f", &[], HOUR_MS)), None);
    assert_eq!(with(retracts("r", "f", &["x", "l"], HOUR_MS)), None);
    assert_eq!(with(retracts("r", "f", &["x"], HOUR_MS)), Some(1));
    assert_eq!(with(retracts("r", "g", &[], HOUR_MS)), Some(1));
    // It must win: an older one does nothing.
    assert_eq!(long(Aggregate::Last, &[Statement { revision: -1, ..retracts("r", "f", &[], HOUR_MS) }, said]), Some(1));
}

#[test]
fn a_retracted_fact_does_not_uncover_what_it_replaced() {
    let first = of_fact("f", says("a", HOUR_MS, Long(1)));
    let second = Statement { revision: 1, ..of_fact("f", says("b", HOUR_MS, Long(2))) };
    let retract = Statement { revision: 2, ..retracts("r", "f", &[], HOUR_MS) };
    assert_eq!(closed(Aggregate::Last, Type::Long, &[first, second, retract]).status, Status::Missing);
}

#[test]
fn the_window_is_closed_at_its_start_and_open_at_its_end() {
    for (after_us, inside) in
        [(-SKEW_US - 1, false), (-SKEW_US, true), (12 * HOUR_MS * 1000 - 1, true), (12 * HOUR_MS * 1000, false)]
    {
        let statement = Statement { event_time_us: P_MS * 1000 + after_us, ..says("a", 12 * HOUR_MS + 5000, Long(1)) };
        assert_eq!(long(Aggregate::Last, &[statement]), inside.then_some(1), "{after_us}");
    }
}

#[test]
fn nothing_happens_after_it_was_received() {
    // A clock in the far future: the fact is as old as its receipt.
    let statement = Statement { event_time_us: i64::MAX, ..says("a", HOUR_MS, Long(1)) };
    let state = closed(Aggregate::Last, Type::Long, &[statement]);
    assert_eq!((state.value, state.at_us), (Some(Long(1)), Some((P_MS + HOUR_MS) * 1000)));
}

#[test]
fn facts_stand_in_the_order_of_time_and_outcome_id() {
    let facts = [says("b", HOUR_MS, Long(2)), says("c", HOUR_MS, Long(3)), says("a", HOUR_MS, Long(1))];
    assert_eq!(long(Aggregate::First, &facts), Some(1));
    assert_eq!(long(Aggregate::Last, &facts), Some(3));
    let earlier = Statement { event_time_us: P_MS * 1000 + 1, ..says("z", HOUR_MS, Long(9)) };
    assert_eq!(long(Aggregate::First, &[facts.as_slice(), &[earlier]].concat()), Some(9));
}

#[test]
fn any_and_all_are_decided_by_the_first_decisive_fact() {
    let facts = |values: [bool; 3]| {
        let late = |(n, value): (i64, bool)| Statement {
            // Received in the reverse order.
            ingest_time_ms: P_MS + 6 * HOUR_MS - n,
            ..says(&n.to_string(), n * HOUR_MS, Boolean(value))
        };
        (1..).zip(values).map(late).collect::<Vec<_>>()
    };
    let hour_us = |n: i64| Some((P_MS + n * HOUR_MS) * 1000);
    let known = |n: i64| Some(P_MS + 6 * HOUR_MS - n);
    for (aggregate, values, value, at_us, known_at_ms) in [
        (Aggregate::Any, [false, true, true], true, hour_us(2), known(2)),
        (Aggregate::Any, [false, false, false], false, hour_us(3), known(1)),
        (Aggregate::All, [true, false, false], false, hour_us(2), known(2)),
        (Aggregate::All, [true, true, true], true, hour_us(3), known(1)),
    ] {
        let state = closed(aggregate, Type::Boolean, &facts(values));
        let expected =
            LabelState { value: Some(Boolean(value)), status: Status::Observed, at_us, known_at_ms, overflow: false };
        assert_eq!(state, expected, "{aggregate:?} {values:?}");
    }
}

#[test]
fn min_and_max_are_of_the_first_fact_that_has_the_value() {
    let facts: Vec<_> =
        (1..).zip([5, 3, 5, 3]).map(|(n, value)| says(&n.to_string(), n * HOUR_MS, Long(value))).collect();
    for (aggregate, value, n) in [(Aggregate::Min, 3, 2), (Aggregate::Max, 5, 1)] {
        let state = closed(aggregate, Type::Long, &facts);
        assert_eq!(state.value, Some(Long(value)));
        assert_eq!(state.at_us, Some((P_MS + n * HOUR_MS) * 1000), "{aggregate:?}");
        assert_eq!(state.known_at_ms, Some(P_MS + n * HOUR_MS));
    }
}

#[test]
fn floats_are_ordered_totally() {
    let order = [-f64::NAN, f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN];
    for pair in order.windows(2) {
        for facts in [[pair[0], pair[1]], [pair[1], pair[0]]] {
            let doubles: Vec<_> = (1..).zip(facts).map(|(n, x)| says(&n.to_string(), n, Double(x))).collect();
            let floats: Vec<_> =
                (1..).zip(facts).map(|(n, x)| says(&n.to_string(), n, Scalar::Float(x as f32))).collect();
            for (aggregate, expected) in [(Aggregate::Min, pair[0]), (Aggregate::Max, pair[1])] {
                let Some(Double(double)) = closed(aggregate, Type::Double, &doubles).value else { panic!() };
                let Some(Scalar::Float(float)) = closed(aggregate, Type::Float, &floats).value else { panic!() };
                assert_eq!(double.to_bits(), expected.to_bits(), "{aggregate:?} {facts:?}");
                assert_eq!(float.to_bits(), (expected as f32).to_bits());
            }
        }
    }
}

#[test]
fn sums_are_exact_or_flagged() {
    let most = 10_i128.pow(38) - 1;
    let decimal = |precision| Type::Decimal { precision, scale: 2 };
    let none: Option<Scalar> = None;
    for (ty, values, sum) in [
        (Type::Long, vec![Long(2), Long(-5)], Some(Long(-3))),
        (Type::Long, vec![Long(i64::MAX), Long(1)], none.clone()),
        (Type::Long, vec![Long(i64::MIN), Long(-1)], none.clone()),
        // What matters is the sum, not what it passes on its way.
        (Type::Long, vec![Long(i64::MAX), Long(1), Long(-1)], Some(Long(i64::MAX))),
        (Type::Int, vec![Int(i32::MAX), Int(1)], none.clone()),
        (Type::Int, vec![Int(i32::MIN), Int(-1), Int(1)], Some(Int(i32::MIN))),
        (decimal(5), vec![Decimal(99_998), Decimal(1)], Some(Decimal(99_999))),
        (decimal(5), vec![Decimal(99_999), Decimal(1)], none.clone()),
        (decimal(5), vec![Decimal(-99_999), Decimal(-1)], none.clone()),
        (decimal(38), vec![Decimal(most), Decimal(most), Decimal(-most)], Some(Decimal(most))),
        (decimal(38), vec![Decimal(-most), Decimal(-most), Decimal(most)], Some(Decimal(-most))),
        (decimal(38), vec![Decimal(most), Decimal(most)], none.clone()),
        (decimal(38), vec![Decimal(-most), Decimal(-most), Decimal(-most)], none.clone()),
        (decimal(38), vec![Decimal(-1), Decimal(-1)], Some(Decimal(-2))),
    ] {
        let facts: Vec<_> =
            (1..).zip(&values).map(|(n, value)| says(&n.to_string(), n * HOUR_MS, value.clone())).collect();
        let state = closed(Aggregate::Sum, ty, &facts);
        assert_eq!((&state.value, state.overflow), (&sum, sum.is_none()), "{values:?}");
        let last = i64::try_from(values.len()).unwrap();
        assert_eq!((state.status, state.known_at_ms), (Status::Observed, Some(P_MS + last * HOUR_MS)));
    }
}

#[test]
fn a_count_counts_facts_not_values() {
    let facts = [says("a", HOUR_MS, Int(7)), says("b", HOUR_MS, Int(7)), of_fact("b", says("c", HOUR_MS, Int(1)))];
    let state = closed(Aggregate::Count, Type::Int, &facts);
    assert_eq!((state.value, state.known_at_ms), (Some(Int(2)), Some(P_MS + HOUR_MS)));
}

#[test]
fn a_label_is_pending_to_its_close_and_never_shows_the_default() {
    let with_default = || Label { default: Some(Long(0)), ..label("l", Type::Long, Aggregate::Last) };
    let said = [says("a", HOUR_MS, Long(1))];
    let open = at(CLOSED_MS - 1, with_default(), &said);
    assert_eq!((open.status, open.value, open.at_us), (Status::Pending, Some(Long(1)), Some((P_MS + HOUR_MS) * 1000)));
    assert_eq!(at(CLOSED_MS - 1, with_default(), &[]), LabelState::empty(Status::Pending));
    let closed = at(CLOSED_MS, with_default(), &[]);
    assert_eq!((closed.status, closed.value, closed.at_us), (Status::Default, Some(Long(0)), None));
    assert_eq!(at(CLOSED_MS, with_default(), &said).status, Status::Observed);
    assert_eq!(at(CLOSED_MS, label("l", Type::Long, Aggregate::Last), &[]), LabelState::empty(Status::Missing));
}

#[test]
fn what_comes_after_the_close_still_counts_at_later_ticks() {
    let late = Statement { ingest_time_ms: CLOSED_MS + 5, ..says("a", HOUR_MS, Long(1)) };
    let late = Statement { event_time_us: (P_MS + HOUR_MS) * 1000, ..late };
    let at = |tick_ms| at(tick_ms, label("l", Type::Long, Aggregate::Last), std::slice::from_ref(&late)).status;
    assert_eq!((at(CLOSED_MS + 5), at(CLOSED_MS + 6)), (Status::Missing, Status::Observed));
}

#[test]
fn what_nobody_saw_is_no_negative() {
    let contract = contract(vec![Label { default: Some(Boolean(false)), ..label("l", Type::Boolean, Aggregate::Any) }]);
    let status = |exposure, tick_ms, statements: &[Statement]| {
        let state = evaluate(&contract, &Prediction { event_time_ms: P_MS, exposure }, tick_ms, statements).remove(0);
        (state.status, state.value)
    };
    assert_eq!(status(None, CLOSED_MS, &[]), (Status::Default, Some(Boolean(false))));
    assert_eq!(status(Some("served"), CLOSED_MS, &[]), (Status::Default, Some(Boolean(false))));
    for exposure in [Some("shadow"), Some("holdout")] {
        assert_eq!(status(exposure, CLOSED_MS, &[]), (Status::NotExposed, None));
        assert_eq!(status(exposure, CLOSED_MS - 1, &[]), (Status::Pending, None));
        let seen = [says("a", HOUR_MS, Boolean(true))];
        assert_eq!(status(exposure, CLOSED_MS, &seen), (Status::Observed, Some(Boolean(true))));
    }
}

#[test]
fn a_label_waits_for_the_one_it_requires() {
    let landed = Label { window_ms: 20 * HOUR_MS, ..label("landed", Type::Boolean, Aggregate::Any) };
    let refund = Label {
        requires: Some("landed".to_owned()),
        default: Some(Boolean(false)),
        ..label("l", Type::Boolean, Aggregate::Any)
    };
    let refund_of = |landed: Label, tick_ms, statements: &[Statement]| {
        let state = evaluate(&contract(vec![refund.clone(), landed]), &SERVED_P, tick_ms, statements).remove(0);
        (state.status, state.value)
    };
    let close_ms = P_MS + 21 * HOUR_MS;
    let said =
        |value| Statement { values: vec![("landed".to_owned(), Boolean(value))], ..says("a", HOUR_MS, Boolean(true)) };
    assert_eq!(refund_of(landed.clone(), close_ms - 1, &[said(true)]), (Status::Pending, None));
    assert_eq!(refund_of(landed.clone(), close_ms, &[said(true)]), (Status::Default, Some(Boolean(false))));
    assert_eq!(refund_of(landed.clone(), close_ms, &[said(false)]), (Status::NotExposed, None));
    assert_eq!(refund_of(landed.clone(), close_ms, &[]), (Status::NotExposed, None));
    // An observed refund stands whatever became of the flight.
    let seen = says("b", HOUR_MS, Boolean(true));
    assert_eq!(refund_of(landed.clone(), close_ms, &[seen]), (Status::Observed, Some(Boolean(true))));
    // The default of the required label is its value.
    let by_default = Label { default: Some(Boolean(true)), ..landed };
    assert_eq!(refund_of(by_default, close_ms, &[]), (Status::Default, Some(Boolean(false))));
}

#[test]
fn labels_of_batch_jobs_stay_pending() {
    let batch = Label { owner: LabelOwner::Batch, default: Some(Long(0)), ..label("l", Type::Long, Aggregate::Last) };
    let state = at(i64::MAX, batch, &[says("a", HOUR_MS, Long(1))]);
    assert_eq!(state, LabelState::empty(Status::Pending));
}

#[test]
fn a_value_of_another_type_says_nothing() {
    let stray = Statement { revision: 5, ..of_fact("f", says("b", HOUR_MS, Int(2))) };
    assert_eq!(long(Aggregate::Last, &[of_fact("f", says("a", HOUR_MS, Long(1))), stray]), Some(1));
    let text = says("a", HOUR_MS, Scalar::String("0-0".to_owned()));
    assert_eq!(closed(Aggregate::Max, Type::Uuid, &[text]).value, Some(Scalar::String("0-0".to_owned())));
}

#[test]
fn the_ends_of_time_do_not_overflow() {
    for ingest_time_ms in [i64::MIN, i64::MAX - 1] {
        for event_time_ms in [i64::MIN, i64::MAX] {
            let statement = Statement { ingest_time_ms, ..says("a", 0, Long(1)) };
            let prediction = Prediction { event_time_ms, exposure: None };
            let contract = contract(vec![label("l", Type::Long, Aggregate::Last)]);
            evaluate(&contract, &prediction, i64::MAX, &[statement]);
        }
    }
}

#[test]
fn a_revision_is_due_where_value_or_status_differ() {
    let state = |value, status| LabelState { value, ..LabelState::empty(status) };
    let nan = |bits| state(Some(Double(f64::from_bits(bits))), Status::Observed);
    assert!(nan(0x7ff8_0000_0000_0000).says_the_same(&nan(0xfff8_0000_0000_0001)));
    assert!(!nan(0).says_the_same(&nan(1 << 63)), "0 and -0 differ in their bits");
    assert!(!nan(0).says_the_same(&state(Some(Double(0.0)), Status::Pending)));
    assert!(!nan(0).says_the_same(&state(None, Status::Observed)));
    let moved = LabelState { at_us: Some(1), known_at_ms: Some(1), ..nan(0) };
    assert!(nan(0).says_the_same(&moved));
}

#[test]
fn a_statement_survives_its_encoding() {
    let mut statement = says("a", HOUR_MS, Decimal(-(10_i128.pow(38) - 1)));
    statement.values.push(("x".to_owned(), Scalar::Bytes(vec![0, 255])));
    let bytes = postcard::to_stdvec(&statement).unwrap();
    assert_eq!(postcard::from_bytes::<Statement>(&bytes).unwrap(), statement);
}

/// Every type with values that are hard on it.
fn pools() -> Vec<(Type, Vec<Scalar>)> {
    let most = 10_i128.pow(38) - 1;
    let text = |texts: [&str; 4]| texts.map(str::to_owned).to_vec();
    let doubles = [f64::NAN, -f64::NAN, 0.0, -0.0, 1.5, f64::NEG_INFINITY];
    vec![
        (Type::Boolean, [true, false].map(Boolean).to_vec()),
        (Type::Int, [0, 1, -1, i32::MAX, i32::MIN].map(Int).to_vec()),
        (Type::Long, [0, 1, -1, i64::MAX, i64::MIN].map(Long).to_vec()),
        (Type::Float, doubles.map(|x| Scalar::Float(x as f32)).to_vec()),
        (Type::Double, doubles.map(Double).to_vec()),
        (Type::Decimal { precision: 38, scale: 2 }, [0, 1, -1, most, -most].map(Decimal).to_vec()),
        (Type::Decimal { precision: 5, scale: 2 }, [0, 1, -1, 99_999, -99_999].map(Decimal).to_vec()),
        (Type::String, text(["", "a", "aa", "ä"]).into_iter().map(Scalar::String).collect()),
        (Type::Bytes, [vec![], vec![0], vec![255, 0], vec![255]].map(Scalar::Bytes).to_vec()),
        (Type::Date, [0, -1, i32::MAX].map(Scalar::Date).to_vec()),
        (Type::Timestamp, [0, -1, i64::MAX].map(Scalar::Timestamp).to_vec()),
        (Type::Uuid, text(["a", "b", "c", "d"]).into_iter().map(Scalar::Uuid).collect()),
    ]
}

/// A contract with every pair of aggregate and type that there is, and of each a few kinds.
fn every_label() -> Contract {
    let mut labels = vec![label("gate", Type::Boolean, Aggregate::Any)];
    for (ty, pool) in pools() {
        for (name, aggregate) in Aggregate::ALL {
            let fits = match aggregate {
                Aggregate::Any | Aggregate::All => ty == Type::Boolean,
                Aggregate::Count => matches!(ty, Type::Int | Type::Long),
                Aggregate::Sum => matches!(ty, Type::Int | Type::Long | Type::Decimal { .. }),
                _ => true,
            };
            if fits {
                let number = labels.len();
                let window_ms = [HOUR_MS, 2 * HOUR_MS][number % 2];
                labels.push(Label {
                    window_ms,
                    default: (number % 3 == 0).then(|| pool[0].clone()),
                    requires: (number % 4 == 0).then(|| "gate".to_owned()),
                    owner: if number % 11 == 0 { LabelOwner::Batch } else { LabelOwner::Streaming },
                    ..label(&format!("{name}_{ty}"), ty.clone(), aggregate)
                });
            }
        }
    }
    contract(labels)
}

/// Statements over few ids and times, so that they meet each other; coordinates are unique, as in a log.
fn statements() -> impl Strategy<Value = Vec<Statement>> {
    let times = (-6 * MINUTE_MS..=130 * MINUTE_MS).prop_map(|after| after / MINUTE_MS * MINUTE_MS);
    let one = (0..5_u8, 0..3_u8, 0..3_i64, 0..3_i64, (times.clone(), -1..=1_i64), times, any::<u64>());
    proptest::collection::vec(one, 0..14).prop_map(|drafts| {
        let contract = every_label();
        let pools = pools();
        let pool_of = |ty: &Type| &pools.iter().find(|(known, _)| known == ty).unwrap().1;
        (0..)
            .zip(drafts)
            .map(|(offset, (event, outcome, revision, op_time_us, (happened, us), received, seed))| {
                let mut bits = seed;
                let mut draw = |below: usize| {
                    bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    usize::try_from(bits >> 33).unwrap() % below
                };
                let retract = draw(4) == 0;
                let name_some = draw(2) == 0;
                let (mut labels, mut values) = (vec![], vec![]);
                for label in &contract.labels {
                    if draw(3) > 0 && !retract {
                        let pool = pool_of(&label.ty);
                        values.push((label.name.clone(), pool[draw(pool.len())].clone()));
                    }
                    if retract && name_some && draw(2) == 0 {
                        labels.push(label.name.clone());
                    }
                }
                Statement {
                    event_id: event.to_string(),
                    outcome_id: outcome.to_string(),
                    revision,
                    op: if retract { Op::Retract } else { Op::Assert },
                    op_time_us,
                    event_time_us: (P_MS + happened) * 1000 + us,
                    ingest_time_ms: P_MS + received,
                    partition: i32::from(event) % 2,
                    offset,
                    contract_version: None,
                    labels,
                    values,
                }
            })
            .collect()
    })
}

fn ticks() -> impl Strategy<Value = i64> {
    (-10..200_i64).prop_map(|minutes| P_MS + minutes * MINUTE_MS)
}

fn exposures() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("served"), Some("shadow")])
}

/// Bits and all: floats are not equal to themselves otherwise.
fn bits(states: &[LabelState]) -> Vec<String> {
    let value = |value: &Option<Scalar>| match value {
        Some(Scalar::Float(x)) => format!("f{:x}", x.to_bits()),
        Some(Double(x)) => format!("d{:x}", x.to_bits()),
        other => format!("{other:?}"),
    };
    let of =
        |s: &LabelState| format!("{} {:?} {:?} {:?} {}", value(&s.value), s.status, s.at_us, s.known_at_ms, s.overflow);
    states.iter().map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_order_of_statements_changes_nothing(
        (given, shuffled) in statements().prop_flat_map(|given| (Just(given.clone()), Just(given).prop_shuffle())),
        tick_ms in ticks(),
    ) {
        let contract = every_label();
        prop_assert_eq!(
            bits(&evaluate(&contract, &SERVED_P, tick_ms, &given)),
            bits(&evaluate(&contract, &SERVED_P, tick_ms, &shuffled))
        );
    }

    #[test]
    fn copies_of_an_event_change_nothing(
        given in statements(),
        picks in proptest::collection::vec((any::<prop::sample::Index>(), 0..100_i64, 0..2_i32), 0..8),
        tick_ms in ticks(),
    ) {
        let contract = every_label();
        let mut copied = given.clone();
        for (pick, later_ms, partition) in picks {
            if !given.is_empty() {
                let original = &given[pick.index(given.len())];
                let offset = 1000 + i64::try_from(copied.len()).unwrap();
                copied.insert(0, Statement {
                    ingest_time_ms: original.ingest_time_ms + later_ms * MINUTE_MS,
                    partition: original.partition + partition,
                    offset,
                    ..original.clone()
                });
            }
        }
        prop_assert_eq!(
            bits(&evaluate(&contract, &SERVED_P, tick_ms, &given)),
            bits(&evaluate(&contract, &SERVED_P, tick_ms, &copied))
        );
    }

    #[test]
    fn the_rule_said_in_another_way_agrees(given in statements(), tick_ms in ticks(), exposure in exposures()) {
        let contract = every_label();
        let prediction = Prediction { event_time_ms: P_MS, exposure };
        prop_assert_eq!(
            bits(&evaluate(&contract, &prediction, tick_ms, &given)),
            bits(&naive::evaluate(&contract, &prediction, tick_ms, &given))
        );
    }
}
