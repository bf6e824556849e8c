//! The programs are in `src/bin`, one for each thing a user wants to do.
//!
//! The README's code is compiled and run from here, so it cannot go stale.

#[doc = include_str!("../../README.md")]
mod readme {}

#[cfg(test)]
mod tests {
    use stream_binder::Config;

    #[test]
    fn the_readme_shows_a_configuration_that_loads() {
        let readme = include_str!("../../README.md");
        let yaml = readme
            .split("```yaml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        let config = Config::from_yaml(yaml).unwrap();
        assert_eq!(config.function_definition(), Some(&["orders".to_owned()][..]));
        assert!(config.has_binding("orders-in-0") && config.has_binding("invoices-out-0"));
    }
}
