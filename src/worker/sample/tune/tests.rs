//! Whole campaigns of tuning, without a cluster.

use super::*;

/// Scores of a campaign in the order they were found, as the step of an orchestrator runs one:
/// every candidate of an iteration knows what came of the iterations before.
fn campaign(name: &str, input: &Value, iterations: u64, candidates: u64) -> Vec<f64> {
    let mut observations: Vec<Value> = Vec::new();
    for iteration in 0..iterations {
        let known = observations.clone();
        for candidate in 0..candidates {
            let mut input = input.clone();
            input["campaign_id"] = name.into();
            input["iteration"] = iteration.into();
            input["candidate"] = candidate.into();
            let structure = format!("{name}.{iteration}.{candidate}");
            input["seed"] = (xxh3_64(structure.as_bytes()) >> 11).into();
            input["observations"] = known.clone().into();
            observations.push(compute(&input).unwrap());
        }
    }
    observations.iter().map(|row| row["score"].as_f64().unwrap()).collect()
}

fn best(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The best of as many random points.
fn random(function: &Function, count: usize, seed: u64) -> f64 {
    let mut rng = SmallRng::seed_from_u64(seed);
    let sides = function.parameters().len();
    let scores: Vec<f64> =
        (0..count).map(|_| function.at(&scaled(function, &uniform(&mut rng, sides)))).collect();
    best(&scores)
}

#[test]
fn minima_are_found_and_random_search_finds_them_not() {
    // function, minimum, iterations of four, how near every campaign comes
    let cases = [("branin", 0.397_887, 12, 0.02), ("hartmann3", -3.862_78, 12, 0.05)];
    for (name, minimum, iterations, near) in cases {
        let input = json!({"function": name});
        let function = Function::parse(&input).unwrap();
        let (mut tuned, mut drawn) = (0.0, 0.0);
        for seed in 0..2 {
            let scores = campaign(&format!("c{seed}"), &input, iterations, 4);
            let miss = best(&scores) - minimum;
            assert!(miss < near, "{name} {seed}: {miss} above the minimum");
            tuned += miss;
            drawn += random(&function, scores.len(), seed) - minimum;
        }
        println!("{name}: {} above the minimum, random search {}", tuned / 2.0, drawn / 2.0);
        assert!(drawn > 10.0 * tuned, "{name}: {tuned} against {drawn} at random");
    }
}

#[test]
fn a_curve_is_fitted() {
    let value = |t: f64| 3.0 * (-0.4 * t).exp() + 1.0;
    let data: Vec<Value> = (0..20).map(|t| json!([t, value(f64::from(t))])).collect();
    let input = json!({"function": "decay", "data": data});
    let function = Function::parse(&input).unwrap();
    let scores = campaign("fit", &input, 12, 4);
    let drawn = (0..8).map(|seed| random(&function, scores.len(), seed)).sum::<f64>() / 8.0;
    let tuned = best(&scores);
    assert!(tuned < 0.15 && drawn > 1.5 * tuned, "{tuned} against {drawn} at random");
}

#[test]
fn a_result_says_what_was_chosen_and_how() {
    let input = json!({"function": "branin", "seed": 5});
    let first = compute(&input).unwrap();
    assert_eq!((&first["chosen_by"], &first["observations"]), (&json!("random"), &json!(0)));
    assert_eq!(compute(&input).unwrap(), first, "the same input gives the same result");
    let x: Vec<f64> = ["x1", "x2"].map(|name| first["parameters"][name].as_f64().unwrap()).into();
    assert_eq!(first["score"].as_f64(), Some(Function::Branin.at(&x)));
    let mut seen: Vec<Value> = Vec::new();
    for seed in 0..6 {
        seen.push(compute(&json!({"function": "branin", "seed": seed})).unwrap());
    }
    // What tells nothing is passed over.
    seen.push(json!({"score": 1.0, "parameters": null}));
    seen.push(json!({"score": null, "parameters": {"x1": 1.0, "x2": 1.0}}));
    for word in ["ei", "pi", "ucb"] {
        let input =
            json!({"function": "branin", "acquisition_function": word, "observations": seen});
        let result = compute(&input).unwrap();
        assert_eq!((&result["chosen_by"], &result["observations"]), (&json!(word), &json!(6)));
    }
}

#[test]
fn candidates_of_one_iteration_choose_different_points() {
    let seen: Vec<Value> =
        (0..8).map(|seed| compute(&json!({"function": "branin", "seed": seed})).unwrap()).collect();
    let point = |candidate: u64| {
        let input = json!({"function": "branin", "campaign_id": "c", "iteration": 2,
                           "candidate": candidate, "seed": candidate, "observations": seen});
        let result = compute(&input).unwrap();
        ["x1", "x2"].map(|name| result["parameters"][name].as_f64().unwrap())
    };
    let points: Vec<[f64; 2]> = (0..4).map(point).collect();
    for (place, a) in points.iter().enumerate() {
        for b in &points[place + 1..] {
            let far = (a[0] - b[0]).hypot(a[1] - b[1]);
            assert!(far > 0.05, "{a:?} and {b:?} are nearly the same: {points:?}");
        }
    }
}

#[test]
fn bad_input_is_refused() {
    for input in [
        json!({}),
        json!({"function": "branin", "acquisition_function": "luck"}),
        json!({"function": "branin", "candidate": 100}),
    ] {
        assert!(matches!(compute(&input), Err(Failure::Input(_))), "{input}");
    }
}
