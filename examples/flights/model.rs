//! The model: how likely a flight arrives more than 15 minutes late, by logistic regression.
//!
//! Served and trained through the same [`Features`], made of a flight at take-off and of a row of the training table:
//! what was served is what is learned from. Training is a function of its rows in their order: one thread, a fixed
//! seed, no clock; the same rows give the same model to the bit.

use chrono::{DateTime, Timelike, Utc};
use serde::{Deserialize, Serialize};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters};

use crate::Error;
use crate::flights::Flight;

/// One in five: what is served before anything was learned.
pub const CONSTANT: f64 = 0.2;
/// Rows that a model is trained from at most, drawn by [`SEED`]: more change its weights in the third digit only, and
/// the demonstration is to end within a minute.
const ROWS_MAX: usize = 10_000;
const SEED: u64 = 2013;
/// Strength of the L2 penalty, against carriers with few flights.
const PENALTY: f64 = 1.0;
/// Departure delays beyond these tell no more.
const DELAY_MIN: (f64, f64) = (-20.0, 120.0);

/// What the model sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    pub departed_at: DateTime<Utc>,
    pub carrier: String,
    pub origin: String,
    pub distance_mi: i32,
    pub dep_delay_min: i32,
    pub temp_f: Option<f64>,
    pub wind_mph: Option<f64>,
    pub precip_in: Option<f64>,
    pub visibility_mi: Option<f64>,
}

impl Features {
    pub fn of(flight: &Flight) -> Features {
        Features {
            departed_at: flight.departed_at,
            carrier: flight.carrier.clone(),
            origin: flight.origin.clone(),
            distance_mi: flight.distance,
            dep_delay_min: flight.dep_delay_min,
            temp_f: flight.temp_f,
            wind_mph: flight.wind_mph,
            precip_in: flight.precip_in,
            visibility_mi: flight.visibility_mi,
        }
    }

    /// The numeric ones; an unknown number is none.
    fn numbers(&self) -> [Option<f64>; NUMBERS] {
        let hour = f64::from(self.departed_at.num_seconds_from_midnight()) / 86_400.0 * std::f64::consts::TAU;
        let delay = f64::from(self.dep_delay_min).clamp(DELAY_MIN.0, DELAY_MIN.1);
        [
            Some(delay),
            Some((delay - 15.0).max(0.0)),
            Some(f64::from(self.distance_mi)),
            Some(hour.sin()),
            Some(hour.cos()),
            self.temp_f,
            self.wind_mph,
            self.precip_in,
            self.visibility_mi,
        ]
    }
}

const NUMBERS: usize = 9;

/// A row to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub features: Features,
    /// The label `late15`.
    pub late: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Model {
    Constant(f64),
    Logistic(Logistic),
}

/// Numbers are standardised by the mean and deviation of the training rows, an unknown one being the mean; carriers
/// and origins that the training rows lack count as none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    scales: Vec<(f64, f64)>,
    carriers: Vec<String>,
    origins: Vec<String>,
    weights: Vec<f64>,
    intercept: f64,
}

impl Model {
    /// The probability that a flight arrives more than 15 minutes late.
    pub fn predict(&self, features: &Features) -> f64 {
        match self {
            Model::Constant(probability) => *probability,
            Model::Logistic(logistic) => {
                let row = logistic.row(features);
                let sum = row.iter().zip(&logistic.weights).fold(logistic.intercept, |sum, (x, w)| sum + x * w);
                1.0 / (1.0 + (-sum).exp())
            }
        }
    }

    /// Trains from the examples in their order.
    ///
    /// # Errors
    /// Where there is nothing to learn: no example, or only one outcome among them.
    pub fn train(examples: &[Example]) -> Result<Model, Error> {
        let drawn = draw(examples);
        let late: Vec<u32> = drawn.iter().map(|example| u32::from(example.late)).collect();
        if !late.contains(&0) || !late.contains(&1) {
            return Err("there are no flights of both kinds to learn from yet".into());
        }
        let words = |of: fn(&Features) -> &String| -> Vec<String> {
            let words: std::collections::BTreeSet<&String> = drawn.iter().map(|row| of(&row.features)).collect();
            words.into_iter().cloned().collect()
        };
        let mut logistic = Logistic {
            scales: scales(&drawn),
            carriers: words(|features| &features.carrier),
            origins: words(|features| &features.origin),
            weights: Vec::new(),
            intercept: 0.0,
        };
        let rows: Vec<Vec<f64>> = drawn.iter().map(|example| logistic.row(&example.features)).collect();
        let matrix = DenseMatrix::from_2d_vec(&rows)?;
        let parameters = LogisticRegressionParameters::default().with_alpha(PENALTY);
        let fitted = LogisticRegression::fit(&matrix, &late, parameters)?;
        let weights = fitted.coefficients();
        logistic.weights = (0..weights.shape().1).map(|column| *weights.get((0, column))).collect();
        logistic.intercept = *fitted.intercept().get((0, 0));
        Ok(Model::Logistic(logistic))
    }
}

impl Logistic {
    fn row(&self, features: &Features) -> Vec<f64> {
        let numbers = features.numbers();
        let mut row: Vec<f64> = numbers
            .iter()
            .zip(&self.scales)
            .map(|(number, (mean, deviation))| number.map_or(0.0, |number| (number - mean) / deviation))
            .collect();
        let is = |word: &String, other: &String| f64::from(u8::from(word == other));
        row.extend(self.carriers.iter().map(|word| is(word, &features.carrier)));
        row.extend(self.origins.iter().map(|word| is(word, &features.origin)));
        row
    }
}

/// Mean and deviation of each number over the rows that have it.
fn scales(rows: &[&Example]) -> Vec<(f64, f64)> {
    let numbers: Vec<[Option<f64>; NUMBERS]> = rows.iter().map(|row| row.features.numbers()).collect();
    let scale = |column: usize| {
        let known = || numbers.iter().filter_map(|row| row[column]);
        let count = known().count().max(1) as f64;
        let mean = known().sum::<f64>() / count;
        let deviation = (known().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
        (mean, if deviation > 0.0 { deviation } else { 1.0 })
    };
    (0..NUMBERS).map(scale).collect()
}

/// At most [`ROWS_MAX`] of the examples, in their order.
fn draw(examples: &[Example]) -> Vec<&Example> {
    if examples.len() <= ROWS_MAX {
        return examples.iter().collect();
    }
    // The first ROWS_MAX steps of a Fisher-Yates shuffle.
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let mut state = SEED;
    for step in 0..ROWS_MAX {
        let rest = (order.len() - step) as u64;
        order.swap(step, step + (next(&mut state) % rest) as usize);
    }
    order.truncate(ROWS_MAX);
    order.sort_unstable();
    order.into_iter().map(|index| &examples[index]).collect()
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights;
    use crate::quality::Quality;

    fn examples() -> Vec<Example> {
        let flights = flights::read(None).unwrap();
        let known = flights.iter().filter_map(|flight| {
            let late = flight.arr_delay_min? > 15;
            Some(Example { features: Features::of(flight), late })
        });
        known.collect()
    }

    #[test]
    fn it_learns_and_twice_the_same() {
        let examples = examples();
        let (past, future) = (&examples[..12_000], &examples[12_000..18_000]);
        let model = Model::train(past).unwrap();
        assert_eq!(Model::train(past).unwrap(), model);
        let quality = |model: &Model| {
            Quality::of(future.iter().map(|example| (model.predict(&example.features), example.late))).unwrap()
        };
        let (learned, constant) = (quality(&model), quality(&Model::Constant(CONSTANT)));
        assert!(learned.log_loss < 0.8 * constant.log_loss, "{learned:?} {constant:?}");
        assert!(learned.auc > 0.85, "{learned:?}");
        assert_eq!(constant.auc, 0.5);
    }

    #[test]
    fn a_saved_model_predicts_the_same_bits() {
        let examples = examples();
        let model = Model::train(&examples[..2000]).unwrap();
        let saved: Model = serde_json::from_str(&serde_json::to_string(&model).unwrap()).unwrap();
        assert_eq!(saved, model);
    }

    #[test]
    fn an_unknown_carrier_and_no_weather_are_bearable() {
        let examples = examples();
        let model = Model::train(&examples[..2000]).unwrap();
        let features = Features { carrier: "??".into(), temp_f: None, wind_mph: None, ..examples[0].features.clone() };
        let probability = model.predict(&features);
        assert!(probability > 0.0 && probability < 1.0);
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        assert!(Model::train(&[]).is_err());
        let example = examples().remove(0);
        assert!(Model::train(&[example.clone(), example]).is_err());
    }
}
