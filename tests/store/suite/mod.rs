//! What both stores must do. Each case is given a store of its own.

pub(crate) mod claims;
pub(crate) mod expiry;
pub(crate) mod journal;
pub(crate) mod leases;
pub(crate) mod slices;
pub(crate) mod values;

/// One test for each case, on the stores that `$subject` makes.
macro_rules! conformance {
    ($subject:path $(, $attribute:meta)*) => {
        $crate::suite::conformance!(@ $subject, [$($attribute),*],
            claims::one_of_64_claims_wins,
            claims::different_payments_do_not_meet,
            claims::a_claimed_job_is_found,
            claims::a_taken_id_is_replaced,
            claims::a_newer_record_is_refused,
            journal::a_job_lives_and_its_journal_tells,
            journal::a_wrong_version_is_fenced,
            journal::a_repeated_append_is_written_once,
            journal::several_steps_are_written_at_once_or_not_at_all,
            journal::steps_that_were_written_in_part_are_fenced,
            journal::one_of_two_appends_wins,
            journal::nothing_follows_rest_without_a_new_lease,
            journal::a_large_answer_comes_back,
            leases::a_held_job_is_not_taken_over,
            leases::an_ended_lease_can_be_taken_over_once,
            leases::a_zombie_is_fenced,
            leases::a_late_holder_goes_on_if_nobody_took_over,
            leases::a_renewed_lease_lasts,
            leases::a_released_lease_writes_nothing,
            leases::due_jobs_are_listed_oldest_first,
            leases::a_voided_job_starts_again,
            expiry::finished_jobs_are_forgotten_in_time,
            expiry::money_outstanding_is_never_forgotten,
            expiry::a_reopened_job_does_not_expire,
            expiry::a_job_at_rest_is_forgotten_when_told,
            expiry::jobs_are_listed_and_counted_by_state,
            expiry::a_scan_finds_every_job,
            expiry::a_scan_misses_no_job_that_moves_on,
            expiry::a_scan_misses_no_job_that_is_held_no_more,
            values::a_value_is_kept_replaced_and_listed,
            values::values_expire,
            values::one_of_many_new_values_wins,
            values::counters_add_up,
            slices::slices_are_never_more_than_the_limit,
            slices::a_slice_grows_shrinks_and_ends,
            slices::a_slice_keeps_what_it_has_when_the_limit_falls,
            slices::many_drawers_never_overdraw,
        );
    };
    (@ $subject:path, $attributes:tt, $($module:ident::$case:ident),+ $(,)?) => {
        $($crate::suite::conformance!(# $subject, $attributes, $module, $case);)+
    };
    (# $subject:path, [$($attribute:meta),*], $module:ident, $case:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $case() {
            $crate::suite::$module::$case(&$subject().await).await;
        }
    };
}
pub(crate) use conformance;
