//! What surrounds a function: shared state, the bridge, and the list of what it needs.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    sync::Arc,
};

use crate::bridge::StreamBridge;

/// What an extractor may use beside the delivery: the application's state and its bridge.
///
/// There is one per bound function.
#[derive(Clone)]
pub struct Context {
    pub(crate) function: Arc<str>,
    pub(crate) content_type: Arc<str>,
    pub(crate) states: Arc<States>,
    pub(crate) bridge: StreamBridge,
}

impl Context {
    /// Name of the function that is about to be called.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.function
    }

    /// The binding's `content-type`, for messages that state none.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The value given to [`App::state`](crate::App::state) for this type.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.states.get()
    }

    /// The application's bridge.
    #[must_use]
    pub fn bridge(&self) -> &StreamBridge {
        &self.bridge
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("function", &self.function)
            .finish_non_exhaustive()
    }
}

/// Shared values by type.
#[derive(Default)]
pub(crate) struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl States {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0
            .get(&TypeId::of::<T>())
            .and_then(|value| value.downcast_ref())
    }

    fn contains(&self, id: TypeId) -> bool {
        self.0.contains_key(&id)
    }
}

/// What a function's extractors need from the application, known before any message arrives, so that its
/// absence is an error at start.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    states: Vec<(TypeId, &'static str)>,
}

impl Requirements {
    /// The application must have a state of type `T`.
    pub fn state<T: Send + Sync + 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// Type names of the required states that `states` does not hold.
    pub(crate) fn missing<'a>(&'a self, states: &'a States) -> impl Iterator<Item = &'static str> + 'a {
        self.states
            .iter()
            .filter(|(id, _)| !states.contains(*id))
            .map(|(_, name)| *name)
    }
}
