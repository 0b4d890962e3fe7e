//! Panels, and where they stand.

use serde_json::{Value, json};

use super::{DATA_SOURCE, query};

/// The width of Grafana's grid.
const COLUMNS: u32 = 24;

/// Panels under a title.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

/// A unit by Grafana's name (`@grafana/data`, `valueFormats`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    RequestsPerSecond,
    EventsPerSecond,
    /// A share between 0 and 1.
    Share,
    Milliseconds,
    Seconds,
    Bytes,
    BytesPerSecond,
    Count,
    Days,
}

impl Unit {
    const fn id(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "reqps",
            Self::EventsPerSecond => "cps",
            Self::Share => "percentunit",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::Count => "short",
            Self::Days => "d",
        }
    }
}

/// How a panel shows its series.
#[derive(Debug)]
enum Shape {
    Lines {
        is_stacked: bool,
    },
    /// The last value, red from the threshold on, if there is one.
    Number {
        red_from: Option<f64>,
    },
    /// A row for each workload, with a column for each query; the first links to the dashboards of single gateways.
    Table {
        columns: Vec<(&'static str, Unit)>,
    },
}

/// A panel.
#[derive(Debug)]
pub(super) struct Panel {
    title: &'static str,
    description: &'static str,
    unit: Unit,
    shape: Shape,
    size: (u32, u32),
    /// Query and legend.
    queries: Vec<(String, &'static str)>,
}

impl Panel {
    const fn new(title: &'static str, description: &'static str, unit: Unit, shape: Shape, size: (u32, u32)) -> Self {
        Self { title, description, unit, shape, size, queries: Vec::new() }
    }

    /// A line for each series.
    pub(super) const fn lines(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(title, description, unit, Shape::Lines { is_stacked: false }, (8, 8))
    }

    /// Series on top of each other.
    pub(super) const fn stacked(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(title, description, unit, Shape::Lines { is_stacked: true }, (8, 8))
    }

    /// One number.
    pub(super) const fn number(
        title: &'static str,
        unit: Unit,
        red_from: Option<f64>,
        description: &'static str,
    ) -> Self {
        Self::new(title, description, unit, Shape::Number { red_from }, (6, 4))
    }

    /// A table of workloads. Each query gives the column of the same place.
    pub(super) const fn table(
        title: &'static str,
        columns: Vec<(&'static str, Unit)>,
        description: &'static str,
    ) -> Self {
        Self::new(title, description, Unit::Count, Shape::Table { columns }, (24, 9))
    }

    /// Another width than the usual third of the grid.
    pub(super) const fn wide(mut self, columns: u32) -> Self {
        self.size.0 = columns;
        self
    }

    /// Adds a query, as [`query`] takes it.
    pub(super) fn query(mut self, text: &str, legend: &'static str) -> Self {
        self.queries.push((text.to_owned(), legend));
        self
    }

    /// Adds a query for each of these quantiles of a histogram. `factor` is what turns its unit into the panel's, as `1000 * `.
    pub(super) fn quantiles(self, quantiles: &[(&str, &'static str)], buckets: &str, factor: &str) -> Self {
        quantiles.iter().fold(self, |panel, (quantile, legend)| {
            let text = format!("{factor}histogram_quantile({quantile}, sum by (le) (rate({buckets}$rate)))");
            panel.query(&text, legend)
        })
    }

    fn to_json(&self, id: u32, (x, y): (u32, u32), is_of_one: bool) -> Value {
        let source = json!({"type": "prometheus", "uid": DATA_SOURCE});
        let is_instant = !matches!(self.shape, Shape::Lines { .. });
        let is_table = matches!(self.shape, Shape::Table { .. });
        let targets = self.queries.iter().zip('A'..).map(|((text, legend), id)| {
            json!({
                "refId": id.to_string(),
                "datasource": source,
                "editorMode": "code",
                "expr": query(text, is_of_one),
                "legendFormat": legend,
                "instant": is_instant,
                "range": !is_instant,
                "format": if is_table { "table" } else { "time_series" },
            })
        });
        let mut panel = json!({
            "id": id,
            "type": self.shape.id(),
            "title": self.title,
            "description": self.description,
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.size.0, "h": self.size.1},
            "targets": targets.collect::<Vec<_>>(),
            "fieldConfig": {"defaults": self.shape.defaults(self.unit), "overrides": self.shape.overrides()},
            "options": self.shape.options(),
        });
        if let Shape::Table { columns } = &self.shape {
            panel["transformations"] = json!([
                {"id": "merge", "options": {}},
                {"id": "organize", "options": {
                    "excludeByName": {"Time": true},
                    "indexByName": {"job": 0, "namespace": 1, "cluster": 2},
                    "renameByName": renamed(columns),
                }},
            ]);
        }
        panel
    }
}

/// Grafana calls the value of a table's query `Value #A`.
fn renamed(columns: &[(&'static str, Unit)]) -> Value {
    let values = columns.iter().zip('A'..).map(|((title, _), id)| (format!("Value #{id}"), json!(title)));
    let names = [("job", "Workload"), ("namespace", "Namespace"), ("cluster", "Cluster")];
    values.chain(names.map(|(label, title)| (label.to_owned(), json!(title)))).collect()
}

impl Shape {
    const fn id(&self) -> &'static str {
        match self {
            Self::Lines { .. } => "timeseries",
            Self::Number { .. } => "stat",
            Self::Table { .. } => "table",
        }
    }

    fn defaults(&self, unit: Unit) -> Value {
        let mut defaults = json!({"unit": unit.id(), "min": 0, "color": {"mode": "palette-classic"}});
        match self {
            Self::Lines { is_stacked } => {
                let mode = if *is_stacked { "normal" } else { "none" };
                defaults["custom"] = json!({
                    "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never", "spanNulls": false,
                    "fillOpacity": if *is_stacked { 40 } else { 10 }, "stacking": {"mode": mode, "group": "A"},
                });
            }
            Self::Number { red_from } => {
                defaults["color"]["mode"] = json!("thresholds");
                defaults["noValue"] = json!("–");
                let red = red_from.map(|value| json!({"color": "red", "value": value}));
                let calm = if red.is_some() { "green" } else { "text" };
                let steps: Vec<_> = [json!({"color": calm, "value": null})].into_iter().chain(red).collect();
                defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
            }
            Self::Table { .. } => {
                defaults["custom"] =
                    json!({"align": "auto", "cellOptions": {"type": "auto"}, "filterable": false, "inspect": false});
            }
        }
        defaults
    }

    fn overrides(&self) -> Vec<Value> {
        let Self::Table { columns } = self else { return vec![] };
        let units = columns.iter().map(|(title, unit)| {
            json!({"matcher": {"id": "byName", "options": title}, "properties": [{"id": "unit", "value": unit.id()}]})
        });
        let boards = [
            ("Envoy", "gateway"),
            ("Kong", "kong"),
            ("Istio", "istio"),
            ("Traefik", "traefik"),
            ("HAProxy", "haproxy"),
            ("ingress-nginx", "ingress-nginx"),
        ];
        // The table does not know of what kind a workload is.
        let links = boards.map(|(kind, board)| {
            let url = format!(
                "/d/gwmon-{board}?var-datasource=${{datasource}}&${{cluster:queryparam}}\
                &var-namespace=${{__data.fields.Namespace}}&var-workload=${{__data.fields.Workload}}&${{__url_time_range}}"
            );
            json!({"title": kind, "url": url, "targetBlank": false})
        });
        let workload = json!({
            "matcher": {"id": "byName", "options": "Workload"},
            "properties": [{"id": "links", "value": links}],
        });
        units.chain([workload]).collect()
    }

    fn options(&self) -> Value {
        match self {
            Self::Lines { .. } => json!({
                "legend": {"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Self::Number { .. } => json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
                "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
            }),
            Self::Table { .. } => json!({"frameIndex": 0, "showHeader": true, "cellHeight": "sm"}),
        }
    }
}

/// The rows one below the other, their panels from left to right. Of one workload, queries are narrowed to the pods that are chosen.
pub(super) fn layout(rows: &[Row], is_of_one: bool) -> Vec<Value> {
    let (mut panels, mut y, mut id) = (Vec::new(), 0, 1..);
    let mut next = || id.next().unwrap_or_default();
    for row in rows {
        panels.push(json!({
            "id": next(), "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for panel in &row.panels {
            if x + panel.size.0 > COLUMNS {
                (x, y, height) = (0, y + height, 0);
            }
            panels.push(panel.to_json(next(), (x, y), is_of_one));
            (x, height) = (x + panel.size.0, height.max(panel.size.1));
        }
        y += height;
    }
    panels
}
