//! What every request moves, kept once for each of some threads and added up at a scrape: a line of memory that two
//! cores write to in turn costs each of them more than the counting.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, Metric, MetricFamily, MetricType};

/// Threads beyond these share.
const STRIPES: usize = 8;

/// The same metric, some times over. Clones are the same metrics.
#[derive(Debug)]
pub(super) struct Striped<M>(Arc<[M]>);

impl<M> Clone for Striped<M> {
    fn clone(&self) -> Self {
        Striped(Arc::clone(&self.0))
    }
}

impl<M> Striped<M> {
    /// As many as there are stripes, all made alike.
    pub(super) fn new(make: impl FnMut() -> prometheus::Result<M>) -> prometheus::Result<Self> {
        std::iter::repeat_with(make).take(STRIPES).collect::<prometheus::Result<_>>().map(Striped)
    }

    /// What each of them leads to.
    pub(super) fn map<N>(&self, lead: impl FnMut(&M) -> N) -> Striped<N> {
        Striped(self.0.iter().map(lead).collect())
    }

    /// This thread's.
    pub(super) fn mine(&self) -> &M {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        &self.0[MINE.get()]
    }
}

impl<M: Collector> Collector for Striped<M> {
    fn desc(&self) -> Vec<&Desc> {
        self.0[0].desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut sum: Vec<MetricFamily> = Vec::new();
        for mut family in self.0.iter().flat_map(Collector::collect) {
            match sum.iter_mut().find(|known| known.name() == family.name()) {
                None => sum.push(family),
                Some(known) => {
                    let kind = known.get_field_type();
                    for metric in family.take_metric() {
                        let known = known.mut_metric();
                        match known.iter_mut().find(|known| known.get_label() == metric.get_label()) {
                            None => known.push(metric),
                            Some(known) => add(kind, known, &metric),
                        }
                    }
                }
            }
        }
        sum
    }
}

/// Counts add up. Nothing else is striped: a gauge has one value.
#[expect(clippy::float_arithmetic, reason = "Prometheus counts in floats; no money is counted here")]
fn add(kind: MetricType, sum: &mut Metric, other: &Metric) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + other.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::HISTOGRAM => {
            let (one, two) = (sum.get_histogram(), other.get_histogram());
            let mut histogram = Histogram::default();
            histogram.set_sample_count(one.get_sample_count() + two.get_sample_count());
            histogram.set_sample_sum(one.get_sample_sum() + two.get_sample_sum());
            let buckets = one.get_bucket().iter().zip(two.get_bucket()).map(|(one, two)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(one.upper_bound());
                bucket.set_cumulative_count(one.cumulative_count() + two.cumulative_count());
                bucket
            });
            let buckets = buckets.collect();
            histogram.set_bucket(buckets);
            sum.set_histogram(histogram);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_many_threads_count_is_shown_as_one() {
        let counter = Striped::new(|| IntCounter::new("c_total", "C.")).unwrap();
        let options = HistogramOpts::new("h", "H.").buckets(vec![1.0, 2.0]);
        let histograms = Striped::new(|| HistogramVec::new(options.clone(), &["route"])).unwrap();
        let registry = Registry::new();
        registry.register(Box::new(counter.clone())).unwrap();
        registry.register(Box::new(histograms.clone())).unwrap();
        let (one, other) = (
            histograms.map(|histograms| histograms.with_label_values(&["/one"])),
            histograms.map(|histograms| histograms.with_label_values(&["/other"])),
        );
        std::thread::scope(|threads| {
            for seconds in [0.5, 1.5, 2.5].repeat(2 * STRIPES) {
                let (counter, one, other) = (&counter, &one, &other);
                threads.spawn(move || {
                    counter.mine().inc();
                    one.mine().observe(seconds);
                    if seconds < 1.0 {
                        other.mine().observe(seconds);
                    }
                });
            }
        });
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let threads = 6 * STRIPES;
        for line in [
            format!("c_total {threads}"),
            format!("h_bucket{{route=\"/one\",le=\"1\"}} {}", threads / 3),
            format!("h_bucket{{route=\"/one\",le=\"2\"}} {}", threads / 3 * 2),
            format!("h_bucket{{route=\"/one\",le=\"+Inf\"}} {threads}"),
            format!("h_sum{{route=\"/one\"}} {}", threads / 3 * 9 / 2),
            format!("h_count{{route=\"/one\"}} {threads}"),
            format!("h_count{{route=\"/other\"}} {}", threads / 3),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }
}
