//! Durable tasks from outside: one suite for every engine, and the faults that each can show.

mod acceptance;
mod access;
mod bad_rows;
mod child;
mod conformance;
#[cfg(feature = "cron")]
mod cron;
mod due;
mod durable;
#[cfg(debug_assertions)]
use durable::killed;
#[cfg(unix)]
mod faults;
mod interrupts;
mod lanes;
mod limits;
mod look;
mod once;
#[cfg(feature = "postgres")]
mod options;
mod peers;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_families;
#[cfg(feature = "postgres")]
mod postgres_faults;
#[cfg(feature = "postgres")]
mod postgres_sessions;
mod races;
mod schedule;
mod seen;
mod sqlite;
#[cfg(unix)]
mod sqlite_faults;
mod steer;
mod support;
mod typed;
mod types;
mod unique;
mod waits;
mod ways_in;
mod words;
mod workers;

/// Runs every test of the suite on one engine: `conformance!(sqlite, crate::sqlite::Bed::new())`,
/// with an attribute for engines that not every machine has.
#[macro_export]
macro_rules! conformance {
    ($engine:ident, $bed:expr $(, #[$attribute:meta])?) => {
        mod $engine {
            $crate::conformance!(@ $bed, [$(#[$attribute])?],
                conformance: accepted_tasks_are_told_of, identifiers_are_unique_within_their_type,
                unknown_types_are_refused, registering_again_updates, types_with_tasks_stay_unless_forced,
                a_task_goes_its_way_with_its_log, nobody_gets_what_another_has, higher_priorities_go_first_then_older_ones,
                tasks_wait_for_their_time, a_full_queue_says_so, many_are_accepted_or_none,
                cancel_takes_out_what_has_not_started, cancel_tells_what_runs, deletion_leaves_nothing,
                a_lost_lease_is_lost_for_everything, only_starts_are_charged, the_restart_limit_ends_a_poison_task,
                an_attempt_given_up_is_charged_as_lost,
                the_time_limit_holds_though_the_lease_is_kept, failures_are_retried_with_their_cause_in_the_log,
                a_failure_for_good_is_not_retried, a_pause_keeps_its_state,
                a_pause_begins_the_counts_anew, a_long_log_keeps_its_order, workers_have_their_say_in_the_log, types_have_their_limit_at_once,
                payloads_may_have_64_mib, names_are_text_of_any_kind, retired_tasks_are_deleted,
                a_retention_that_makes_no_sense_deletes_nothing, what_has_retired_keeps_no_lost_task_from_rescue,
                with_retention_the_disk_does_not_fill,
                counters_add_up, the_depth_says_what_waits_and_runs,
                progress_and_messages_are_seen_at_once, what_is_given_back_is_as_before, a_response_keeps_its_media_type,
                waits_end_in_time_and_see_other_handles, one_bad_row_keeps_no_other_from_rescue,
                one_bad_row_keeps_no_other_from_being_claimed, a_type_named_twice_has_its_tasks_once,
                the_longest_durations_are_never, the_longest_poll_interval_is_no_panic;
                lanes: accessors_share_and_modifiers_run_alone, nobody_overtakes, who_leaves_in_whatever_way_opens_the_lane,
                keys_and_types_are_strangers, a_paused_modifier_keeps_its_place,
                a_bad_row_opens_the_lane;
                limits: limits_are_set_listed_and_removed,
                limits_that_make_no_sense_hold_back_their_type_alone, a_key_has_its_limit_at_once, limits_are_changed_while_tasks_wait_and_run,
                a_modifier_is_alone_below_a_limit, a_type_starts_no_faster_than_its_rate, each_key_starts_no_faster_than_its_rate,
                what_a_rate_holds_back_holds_nothing_else, keys_take_turns, a_priority_ages, what_is_held_back_blocks_no_other,
                many_keys_that_are_held_back_block_no_other, thousands_of_keys_at_their_limit_block_no_other,
                thousands_of_keys_held_by_their_rate_block_no_other, tasks_without_a_key_are_found_behind_a_crowd,
                a_worker_wakes_for_what_is_behind_all_that_is_held_back, a_rate_counts_claims, a_worker_wakes_when_the_next_start_is_due,
                many_workers_keep_a_key_s_limit;
                look: tasks_are_listed_page_by_page, a_filter_fits_what_it_says, a_page_reads_no_more_than_it_may,
                a_bad_row_hides_no_other_from_a_list, views_have_readable_statuses;
                steer: a_failed_task_is_retried_with_its_history, a_cancelled_task_that_ran_is_not_cancelled_again,
                a_retried_task_is_last_in_its_order, many_are_retried_cancelled_and_deleted_by_filter,
                a_retried_lane_keeps_its_order, what_waits_is_rearranged, a_paused_type_is_taken_by_nobody,
                workers_wait_for_a_paused_type, a_retry_of_many_goes_beside_workers;
                due: what_is_due_runs_on_this_thread, time_that_passes_ends_leases_and_retention,
                a_task_that_is_due_for_ever_is_told_of;
                once: the_end_of_a_task_is_in_its_handlers_commit, a_transaction_that_is_rolled_back_finishes_nothing,
                who_has_lost_the_task_finishes_nothing_in_a_transaction, an_end_in_a_transaction_opens_the_lane,
                a_worker_takes_the_handlers_commit_for_the_end;
                waits: another_process_wakes_workers_and_waiters, many_threads_wait_and_each_is_told_of_its_task,
                all_and_any_are_waited_for_in_one_call, one_bad_row_keeps_no_other_from_being_waited_for;
                peers: a_lost_task_comes_back_though_another_of_its_key_waits, a_task_that_died_with_its_worker_stands_in_nobodys_way,
                a_place_below_a_limit_is_given_back_once, a_limit_holds_across_a_kill,
                a_limit_that_is_taken_away_holds_nothing_back, a_firing_that_finds_no_room_is_made_up_for,
                thousands_that_are_due_at_once_all_come, an_error_with_a_zero_byte_is_a_failure_like_others,
                a_response_holds_any_bytes, a_weekly_schedule_outlives_daily_restarts,
                a_failed_task_is_tried_again_though_another_of_its_key_waits, a_schedule_fires_while_all_threads_are_busy,
                a_pause_outlives_restarts_and_holds_for_what_comes_due, a_discarded_task_of_a_key_lets_the_next_follow,
                a_crowd_below_a_rate_never_stalls, what_has_ended_goes_by_its_types_retention,
                a_priority_outlives_attempts_pauses_and_a_lost_worker, pauses_lengthen_no_wait_for_the_next_attempt,
                however_many_attempts_fail_the_wait_is_the_cap, what_waits_for_its_next_attempt_holds_up_no_other,
                seventy_thousand_are_accepted_in_one_step, what_runs_is_followed_by_one_and_not_by_many,
                what_is_pushed_back_runs_once_with_what_was_said_last, a_paused_type_is_not_flooded_by_its_schedule,
                a_failed_task_is_retried_by_hand_though_another_of_its_key_waits,
                a_schedule_with_much_to_make_up_for_holds_up_no_other;
                durable: a_sleep_is_stored_with_its_pause_or_not_at_all, a_function_that_was_cancelled_at_work_stores_no_sleep,
                    a_function_that_wakes_too_soon_sleeps_on_until_its_time,
                    a_step_runs_once_and_a_sleep_holds_nothing, a_swallowed_pause_is_still_a_pause,
                a_panic_after_a_pause_is_still_a_pause, a_step_has_its_own_policy,
                without_a_policy_a_failure_is_the_tasks, a_step_that_takes_too_long_has_failed,
                a_panic_of_a_step_names_it, who_has_lost_the_task_stores_no_step, a_cancelled_function_gets_no_further,
                results_are_bytes_or_json_and_not_endless, a_step_in_a_transaction_happens_exactly_once,
                a_step_in_a_transaction_has_its_own_policy_and_time_limit,
                who_has_lost_the_task_writes_nothing_in_a_transaction, an_older_database_gets_its_steps,
                a_renamed_step_is_an_error_that_names_both, a_step_that_was_left_out_is_an_error,
                a_value_that_no_longer_fits_is_an_error_that_names_both, a_step_of_another_kind_is_an_error,
                steps_may_change_places, a_patch_lets_old_runs_end_with_old_code, an_event_is_kept_until_it_is_awaited,
                an_event_that_comes_while_the_function_runs_wakes_it,
                an_event_that_does_not_come_in_time_is_an_error_for_ever, an_event_with_a_key_is_sent_once,
                an_event_for_a_task_that_is_not_there_is_refused, children_give_their_results_in_order_and_wake_once,
                the_first_failure_cancels_the_rest, all_may_be_awaited_though_some_fail, a_cancel_goes_down_the_tree,
                a_failed_parents_children_are_cancelled, trees_are_bounded, a_child_that_is_there_already_is_refused,
                a_deleted_child_is_a_failure, a_fork_goes_on_from_a_step, a_tree_prints_as_a_table_and_as_json,
                a_function_moves_with_its_steps_and_its_events, a_child_of_a_parent_that_waits_is_not_moved,
                a_result_that_is_waited_for_outlives_its_retention, a_result_that_can_not_be_read_back_is_a_failure_and_not_stored,
                a_transaction_that_failed_is_run_again, each_time_limit_of_a_loop_is_remembered,
                an_event_of_nothing_is_an_event, a_childs_failure_is_the_same_in_every_run,
                large_results_are_each_their_own_childs, events_that_come_in_its_sleep_are_each_taken_once,
                what_waits_for_an_attempt_or_a_time_is_cancelled_for_good, a_child_that_is_retried_is_waited_for_again,
                who_has_lost_the_task_takes_no_event, a_crash_begins_no_time_limit_anew,
                a_child_that_ends_while_its_parent_is_over_is_seen_by_its_retry, a_child_that_is_restarted_has_not_failed,
                a_stored_failure_is_run_anew_by_a_fork,
                the_longest_sleep_is_a_sleep, an_outage_between_two_steps_is_waited_out,
                an_outage_of_a_claim_without_a_worker_is_no_failure,
                a_parent_with_a_key_is_retried_together_with_its_children,
                a_child_whose_row_makes_no_sense_keeps_no_cancel_from_its_end,
                a_parent_wakes_when_its_children_go_with_their_type;
                typed: a_typed_task_has_its_input, a_handler_needs_no_types_and_no_result;
                types: thousands_of_types_are_claimed_in_one_order;
                words: a_zero_byte_is_in_no_name;
                bad_rows: no_value_in_a_row_that_waits_keeps_other_tasks_from_their_way,
                no_value_in_a_row_that_waits_below_limits_keeps_other_tasks_from_their_way,
                no_value_in_a_row_that_a_worker_holds_keeps_other_tasks_from_their_way,
                a_time_that_makes_no_sense_keeps_no_worker_from_waking, a_bad_row_behind_it_in_its_order_spoils_no_end,
                a_capacity_that_makes_no_sense_is_called_that;
                ways_in: every_way_in_checks_the_same;
                schedule: a_schedule_fires_once_for_all, workers_fire_schedules_and_their_tasks_carry_what_was_given,
                missed_times_are_made_up_for_as_the_policy_says,
                more_missed_times_than_there_is_room_for_come_one_after_the_other, putting_a_schedule_again_keeps_its_times,
                a_paused_schedule_makes_up_for_nothing, what_can_not_be_fired_keeps_no_other_from_it,
                schedules_that_make_no_sense_are_refused;
                unique: one_that_waits_stands_for_the_next, one_that_has_not_ended_stands_for_the_next,
                one_of_a_period_stands_for_the_next, the_input_may_be_the_key, what_waits_is_replaced_or_pushed_back,
                what_has_started_once_is_not_replaced,
                an_order_is_kept_where_what_waits_is_pushed_back, many_at_once_have_their_own_among_them,
                one_of_many_producers_is_first, in_a_transaction_of_the_callers_one_is_enough,
                a_retried_task_keeps_its_key, a_schedule_s_task_may_be_unique;
                seen: the_page_for_prometheus_tells_what_happened, events_tell_of_starts_and_ends,
                the_submitters_context_comes_to_the_handler;
                access: a_queue_that_is_not_there_is_not_made, who_only_looks_changes_nothing,
                what_waits_moves_to_another_queue, paused_and_ended_tasks_move_with_their_past;
                acceptance: enqueue_in_the_callers_transaction, a_late_acknowledgement_never_overwrites_a_successor,
                reused_worker_names_finish_nothing, a_failure_strands_nothing, completion_or_renewal_after_expiry_is_refused,
                an_expired_task_may_be_given_up_until_it_is_taken_away,
                no_database_is_locked;
                races: sixteen_producers_fill_it_exactly, one_of_many_gets_the_identifier, the_reaper_races_the_finish,
                cancel_races_the_finish;
                workers: handlers_end_tasks_in_every_way, a_drain_gives_back_and_waits, a_drain_that_takes_too_long_puts_back_what_obeys,
                a_dropped_worker_puts_back_what_obeys, an_outage_longer_than_the_lease_fails_nothing,
                a_stop_of_the_worker_fails_only_what_has_no_restart_left, a_cancel_holds_though_the_worker_stops_as_well,
                a_long_task_with_a_short_lease_starts_once, a_cancelled_handler_is_told, a_lost_handler_is_told,
                stores_keep_their_order, requests_of_stores_fail_and_are_cancelled, many_workers_share_the_work,
                tasks_started_together_end_as_those_started_alone,
                a_task_that_is_lost_before_its_turn_is_not_run, handlers_run_on_the_executor_that_was_given,
                a_stray_task_is_found_and_put_back, an_outcome_that_can_not_be_written_is_a_lost_attempt, an_error_that_panics_when_it_is_shown_is_a_failure,
                a_handler_whose_task_was_taken_anew_is_told, handlers_that_hang_starve_no_other_type,
                a_handler_of_a_type_that_nobody_registered_is_told_of;
                interrupts: a_cancel_interrupts_a_handler_and_ends_its_task,
                a_drain_interrupts_a_handler_once_its_time_is_over, a_dropped_worker_interrupts_its_handlers,
                a_lost_lease_interrupts_a_handler, a_claim_of_ones_own_is_interrupted_wherever_it_runs,
                a_claim_whose_operation_is_cancelled_goes_back, an_interrupted_step_has_not_failed,
                each_wait_of_a_handler_ends_with_its_cancel_on_any_thread,
                the_time_limit_of_a_step_interrupts_it_and_nothing_else, a_hook_of_a_step_is_not_called_after_its_end,
                a_cancel_reaches_into_a_step_with_a_time_limit, a_step_in_a_cancelled_operation_has_not_failed,
                a_statement_of_a_step_is_given_up_and_nothing_of_it_is_left, a_cancel_gives_up_a_statement_of_a_step);
            #[cfg(feature = "postgres")]
            $crate::conformance!(@ $bed, [$(#[$attribute])?], options: an_option_of_the_other_engine_is_refused);
            #[cfg(feature = "cron")]
            $crate::conformance!(@ $bed, [$(#[$attribute])?], cron: cron_expressions_have_their_zone,
                a_schedule_that_is_put_anew_fires_no_time_twice);
            #[cfg(debug_assertions)]
            $crate::conformance!(@ $bed, [$(#[$attribute])?],
                killed: killed_anywhere_no_step_is_lost_and_none_runs_after_it_was_stored,
                a_step_that_is_stored_after_it_is_reported_is_caught);
            #[cfg(unix)]
            $crate::conformance!(@ $bed, [$(#[$attribute])?],
                faults: killed_and_stopped_workers_lose_nothing_and_finish_nothing_twice, a_stopped_worker_can_not_finish_late,
                a_poison_task_stops_and_its_neighbours_finish, a_poison_task_takes_those_started_with_it_along_once,
                a_clock_that_jumps_finishes_nothing_twice, a_worker_drains_at_the_first_signal_and_ends_at_the_second,
                a_killed_producer_loses_nothing_that_was_acknowledged, many_processes_open_a_new_database_at_once,
                a_newer_schema_is_refused, an_open_program_is_told_of_a_newer_schema);
        }
    };
    (@ $bed:expr, $attributes:tt, $($module:ident: $($test:ident),*);*) => {
        $(mod $module {
            $crate::conformance!(# $module, $bed, $attributes, $($test),*);
        })*
    };
    (# $module:ident, $bed:expr, $attributes:tt, $($test:ident),*) => {
        $($crate::conformance!(! $module, $bed, $attributes, $test);)*
    };
    (! $module:ident, $bed:expr, [$($attribute:tt)*], $test:ident) => {
        #[test]
        $($attribute)*
        fn $test() {
            $crate::$module::$test(&$bed);
        }
    };
}

conformance!(on_sqlite, crate::sqlite::File::new());

#[cfg(feature = "postgres")]
conformance!(on_postgres, crate::postgres::Schema::new(), #[ignore = "tests/run brings it: a PostgreSQL server"]);
