//! From configuration and functions to the list of bindings; all mistakes are found here, before anything
//! is bound.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use crate::{
    app::error::{StartError, StartProblem, StartProblemKind as Kind},
    closest::closest,
    config::{BindingProperties, Config},
    function::{Function, Role, context::States},
};

/// What is going to be bound.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) functions: Vec<PlannedFunction>,
    /// Every output binding by name: those of functions and those of the bridge alone.
    pub(super) outputs: BTreeMap<String, BindingProperties>,
}

/// One function with its bindings.
#[derive(Debug)]
pub(super) struct PlannedFunction {
    pub(super) function: Function,
    /// With its consumer group; `None` for a supplier.
    pub(super) input: Option<(BindingProperties, String)>,
    /// Name of an output binding; `None` for a consumer.
    pub(super) output: Option<String>,
}

pub(super) fn plan(config: &Config, functions: Vec<Function>, states: &States) -> Result<Plan, StartError> {
    let mut problems = Vec::new();
    let existing = Names::of(config, &functions);
    let chosen = choose(config, functions, &mut problems);
    let mut plan = Plan {
        functions: Vec::new(),
        outputs: BTreeMap::new(),
    };
    for function in chosen {
        for state in function.requirements.missing(states) {
            let text = format!(
                "{} takes `State<{state}>`, but the application has no such state; add `.state(..)` with a `{state}` to the App",
                function.described(),
            );
            problems.push(StartProblem::new(Kind::MissingState, text));
        }
        let input = input_of(config, &function, &plan.functions, &mut problems);
        let output = binding_name(config, function.output_binding(), function.output.is_some());
        if let Some(name) = &output {
            plan.outputs
                .entry(name.clone())
                .or_insert_with(|| config.binding(name));
        }
        plan.functions.push(PlannedFunction {
            function,
            input,
            output,
        });
    }
    check_names(config, &plan, &existing, &mut problems);
    bridge_outputs(config, &mut plan, &existing, &mut problems);
    if problems.is_empty() {
        Ok(plan)
    } else {
        Err(StartError::Mismatch(problems))
    }
}

/// Implicit names may be renamed by `spring.cloud.stream.function.bindings`; given ones are used as they are.
fn binding_name(config: &Config, name: Option<String>, given: bool) -> Option<String> {
    name.map(|name| {
        if given {
            name
        } else {
            config.binding_name(&name).to_owned()
        }
    })
}

/// Binding names of all functions that exist, bound or not.
#[derive(Default)]
struct Names {
    inputs: BTreeSet<String>,
    outputs: BTreeSet<String>,
}

impl Names {
    fn of(config: &Config, functions: &[Function]) -> Self {
        let mut names = Self::default();
        for function in functions {
            names.inputs.extend(binding_name(
                config,
                function.input_binding(),
                function.input.is_some(),
            ));
            names.outputs.extend(binding_name(
                config,
                function.output_binding(),
                function.output.is_some(),
            ));
        }
        names
    }
}

/// The functions that the definition names, in its order; without a definition the only one.
fn choose(config: &Config, functions: Vec<Function>, problems: &mut Vec<StartProblem>) -> Vec<Function> {
    let mut by_name: BTreeMap<String, Function> = BTreeMap::new();
    for function in functions {
        if let Some(first) = by_name.get(function.name()) {
            let (first, second) = (first.described(), function.described());
            let text = format!(
                "two functions have the same name: {first} and {second}; rename one, or give it `name = \"..\"`"
            );
            problems.push(StartProblem::new(Kind::DuplicateFunction, text));
            continue;
        }
        by_name.insert(function.name().to_owned(), function);
    }
    let Some(definition) = config.function_definition() else {
        if by_name.len() > 1 {
            let names: Vec<_> = by_name.keys().map(String::as_str).collect();
            let text = format!(
                "spring.cloud.function.definition is not set and there are {} functions; choose with `spring.cloud.function.definition: {}`",
                names.len(),
                names.join(";"),
            );
            problems.push(StartProblem::new(Kind::AmbiguousDefinition, text));
            return Vec::new(); // which bindings are needed is not known, so nothing can be said about them
        }
        return by_name.into_values().collect();
    };
    let mut chosen: Vec<Function> = Vec::new();
    for name in definition {
        if let Some(function) = by_name.remove(name) {
            chosen.push(function);
            continue;
        }
        problems.push(undefined(name, &by_name, &chosen));
    }
    chosen
}

fn undefined(name: &str, left: &BTreeMap<String, Function>, chosen: &[Function]) -> StartProblem {
    let key = "spring.cloud.function.definition";
    if chosen.iter().any(|function| function.name() == name) {
        return StartProblem::new(
            Kind::DuplicateFunction,
            format!("{key} names `{name}` twice; remove one"),
        );
    }
    let names = || {
        left.keys()
            .map(String::as_str)
            .chain(chosen.iter().map(Function::name))
    };
    let known: Vec<_> = names().collect();
    let remedy = match closest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => {
            "no function is registered; annotate one, and write `use its_crate as _;` if it is in another crate".to_owned()
        }
        None => format!("known: {}", known.join(", ")),
    };
    StartProblem::new(
        Kind::UnknownFunction,
        format!("{key} names the unknown function `{name}`; {remedy}"),
    )
}

fn input_of(
    config: &Config,
    function: &Function,
    earlier: &[PlannedFunction],
    problems: &mut Vec<StartProblem>,
) -> Option<(BindingProperties, String)> {
    let name = binding_name(config, function.input_binding(), function.input.is_some())?;
    let same = |planned: &&PlannedFunction| planned.input.as_ref().is_some_and(|(b, _)| b.name == name);
    if let Some(other) = earlier.iter().find(same) {
        let (first, second) = (other.function.described(), function.described());
        let text = format!("{first} and {second} are both bound to `{name}`; give each its own binding");
        problems.push(StartProblem::new(Kind::DuplicateBinding, text));
    }
    let binding = config.binding(&name);
    // A missing group is reported by the configuration's own check.
    binding.group.clone().map(|group| (binding, group))
}

/// Has the configuration checked against the bound functions, and against those that exist and are not bound
/// but are configured: leaving a function out of the definition is no mistake.
fn check_names(config: &Config, plan: &Plan, existing: &Names, problems: &mut Vec<StartProblem>) {
    let bound = |name: &str| {
        let input_of = |planned: &PlannedFunction| {
            binding_name(
                config,
                planned.function.input_binding(),
                planned.function.input.is_some(),
            )
        };
        plan.outputs.contains_key(name)
            || plan
                .functions
                .iter()
                .any(|f| input_of(f).as_deref() == Some(name))
    };
    let relevant = |names: &'_ BTreeSet<String>| -> Vec<String> {
        names
            .iter()
            .filter(|name| bound(name) || config.has_binding(name))
            .cloned()
            .collect()
    };
    let (inputs, outputs) = (relevant(&existing.inputs), relevant(&existing.outputs));
    for name in inputs.iter().chain(&outputs).filter(|name| !bound(name)) {
        warn!(
            binding = name,
            "configured, but its function is not in spring.cloud.function.definition"
        );
    }
    let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
    let outputs: Vec<_> = outputs.iter().map(String::as_str).collect();
    if let Err(errors) = config.check(&inputs, &outputs) {
        problems.extend(errors.into_iter().map(StartProblem::from));
    }
}

/// The other configured bindings are outputs for the bridge, or misspelt outputs of functions.
fn bridge_outputs(config: &Config, plan: &mut Plan, existing: &Names, problems: &mut Vec<StartProblem>) {
    let unconfigured: Vec<_> = existing
        .outputs
        .iter()
        .filter(|name| !config.has_binding(name))
        .collect();
    for name in config.binding_names() {
        if existing.inputs.contains(name) || existing.outputs.contains(name) || is_input(config, name) {
            continue;
        }
        // A typo in the binding of a function leaves that function's own binding without configuration.
        if let Some(near) = closest(name, unconfigured.iter().map(|name| name.as_str())) {
            let text =
                format!("spring.cloud.stream.bindings.{name} belongs to no function; did you mean `{near}`?");
            problems.push(StartProblem::new(Kind::UnknownBinding, text));
            continue;
        }
        plan.outputs.insert(name.to_owned(), config.binding(name));
    }
}

/// `..-in-0` is an input by its name; a binding with another name is one if it has a group. Those without a
/// function were reported by the configuration's check.
fn is_input(config: &Config, name: &str) -> bool {
    let numbered = |marker: &str| {
        name.rsplit_once(marker)
            .is_some_and(|(_, index)| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
    };
    numbered("-in-") || (!numbered("-out-") && config.binding(name).group.is_some())
}

impl PlannedFunction {
    pub(super) fn is_supplier(&self) -> bool {
        self.function.role == Role::Supplier
    }
}
