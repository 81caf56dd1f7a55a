"""Which tests show that a row of the table is true: two or three of the telling ones for each.

While such a test runs, it has to make the call, or to get the callback, that it is named for.
"""

from __future__ import annotations

from typing import Final

from wasm_middleware.abi import signatures
from wasm_middleware.proxy_wasm import wasi


def _tests(module: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{module}.py::test_{name}" for name in names)


def _core(topic: str, *names: str) -> tuple[str, ...]:
    return _tests(f"proxy_wasm/test_{topic}", *names)


def _older(*names: str) -> tuple[str, ...]:
    return _tests("asgi/test_older_guests", *names)


_ENDINGS = _core("endings", "log_comes_before_done_and_done_before_delete")
_NETWORK = _core("connection", "a_new_connection_passes_the_chain_in_order")
_DATA = _core(
    "connection",
    "a_callback_sees_each_message_with_its_bounds",
    "downstream_data_passes_in_order_and_upstream_data_in_reverse",
)
_CLOSE = _core("connection", "the_end_is_shown_and_then_the_close", "a_close_is_told_once")
_ORDER = _core("grpc", "a_stream_delivers_everything_in_order_and_its_close_last")
_METADATA = _core("grpc", "metadata_is_read_in_its_callback_alone")
_WITHOUT_RESULT = _older("a_stream_goes_on_before_it_has_stopped")
_CONTINUES = _core("linking", "0_1_0_continues_with_and_without_a_result") + _WITHOUT_RESULT
_TOOLCHAINS = _older("what_toolchains_import_beside_the_abi_is_there")

HOST_CALLS: Final = {
    "proxy_done": _core("contexts", "a_root_that_waits_may_say_that_it_is_done")
    + _core("deliveries", "a_root_that_has_something_left_stays_until_it_is_done"),
    "proxy_set_effective_context": _core(
        "contexts",
        "another_context_becomes_effective_for_this_callback_only",
        "an_unknown_context_is_a_bad_argument",
    ),
    "proxy_log": _core(
        "logging",
        "each_level_is_one_of_pythons",
        "a_record_tells_plugin_phase_and_context",
        "a_second_line_can_not_pass_for_another_message",
    ),
    "proxy_get_log_level": _core("logging", "the_level_can_be_asked_for"),
    "proxy_get_current_time_nanoseconds": _core("wasi", "the_time_of_the_abi_is_the_wall_clock"),
    "proxy_set_tick_period_milliseconds": _core(
        "contexts", "ticks_are_set_for_the_root_from_any_context"
    )
    + _core("deliveries", "whoever_looks_is_told_of_a_new_period"),
    "proxy_set_buffer_bytes": _core(
        "buffers", "set_splices_as_the_specification_says", "set_ignores_what_is_read_only"
    )
    + _core("bodies", "what_is_set_while_paused_takes_the_place_of_all_and_later_chunks_append"),
    "proxy_get_buffer_bytes": _core(
        "buffers",
        "get_reads_what_is_there_and_clips_the_rest",
        "get_beyond_the_end_gives_no_address",
        "configurations_are_buffers_in_every_phase",
    ),
    "proxy_get_buffer_status": _core("buffers", "status_tells_the_size"),
    "proxy_get_header_map_size": _core("header_calls", "the_size_is_that_of_the_serialized_pairs"),
    "proxy_get_header_map_pairs": _core(
        "header_calls", "pairs_are_all_headers_in_order", "a_map_that_is_not_there_is_empty"
    ),
    "proxy_set_header_map_pairs": _core(
        "header_writes",
        "set_pairs_keeps_pseudo_headers_that_are_not_given",
        "malformed_pairs_count_as_none",
    ),
    "proxy_get_header_map_value": _core(
        "header_calls",
        "a_value_is_the_first_of_its_name_in_any_case",
        "a_missing_header_is_not_found",
        "bytes_beyond_ascii_arrive_untouched",
    )
    + _core("version_0_1_0", "a_missing_header_is_empty"),
    "proxy_add_header_map_value": _core(
        "header_writes",
        "add_appends_a_second_header",
        "a_value_that_breaks_out_of_its_line_is_not_added",
    ),
    "proxy_replace_header_map_value": _core(
        "header_writes",
        "replace_leaves_one_header_and_it_is_the_last",
        "host_and_authority_are_one_header",
    ),
    "proxy_remove_header_map_value": _core(
        "header_writes",
        "remove_takes_away_all_of_a_name",
        "removing_what_is_not_there_changes_nothing",
    ),
    "proxy_continue_stream": _core(
        "pause",
        "only_the_plugin_that_paused_goes_on_and_the_next_one_is_shown",
        "resuming_what_is_not_paused_is_fine",
    )
    + _core("connection", "a_resume_within_the_callback_wins"),
    "proxy_close_stream": _core(
        "reply_contents",
        "closing_a_stream_is_a_bare_503",
        "closing_a_stream_whose_response_has_started_cuts_it",
    )
    + _core("connection_ends", "a_plugin_closes_the_connection"),
    "proxy_continue_request": _older("a_request_goes_on_when_the_answer_to_a_call_says_so")
    + _CONTINUES,
    "proxy_continue_response": _CONTINUES,
    "proxy_clear_route_cache": _CONTINUES,
    "proxy_send_local_response": _core(
        "replies",
        "the_action_returned_with_a_reply_does_not_count",
        "a_reply_from_response_headers_goes_straight_to_the_client",
    )
    + _older("a_request_is_answered_when_the_answer_to_a_call_says_so"),
    "proxy_get_status": _core(
        "callouts", "a_failure_is_told_by_get_status_and_the_next_success_clears_it"
    )
    + _core("grpc", "a_call_that_fails_ends_with_its_status"),
    "proxy_get_configuration": _core(
        "version_0_1_0",
        "the_configuration_is_the_vms_while_it_starts",
        "a_second_root_reads_its_own_configuration",
    )
    + _older("a_configuration_is_read_and_a_missing_header_is_empty"),
    "proxy_get_property": _core(
        "properties",
        "every_property_can_be_asked_for_before_there_is_a_response",
        "a_plugin_knows_who_it_is_in_every_context",
        "protocols_are_named_as_envoy_does",
    ),
    "proxy_set_property": _core(
        "properties",
        "later_plugins_of_the_stream_see_what_was_set",
        "the_properties_of_a_stream_have_a_cap",
    ),
    "proxy_http_call": _core(
        "callouts",
        "a_call_goes_out_as_the_plugin_made_it",
        "what_cannot_be_called_is_a_bad_argument_and_the_log_says_why",
    )
    + _older("a_request_goes_on_when_the_answer_to_a_call_says_so"),
    "proxy_dispatch_http_call": _core("callouts", "a_call_goes_out_as_the_plugin_made_it"),
    "proxy_grpc_call": _core(
        "grpc",
        "a_call_goes_out_as_the_plugin_made_it",
        "a_call_that_succeeds_ends_with_its_message",
    ),
    "proxy_grpc_stream": _core(
        "grpc",
        "a_stream_goes_out_without_a_message_or_a_timeout",
        "what_cannot_be_called_is_a_parse_failure_and_the_log_says_why",
    )
    + _ORDER,
    "proxy_grpc_send": _core("grpc", "messages_go_out_in_order_and_an_end_ends_them"),
    "proxy_grpc_cancel": _core(
        "grpc", "nothing_comes_after_a_cancel", "a_stream_may_be_cancelled_in_its_own_callback"
    ),
    "proxy_grpc_close": _core("grpc", "closing_a_stream_ends_what_is_sent_and_answers_still_come"),
    "proxy_set_shared_data": _core(
        "shared",
        "zero_stores_in_any_case",
        "a_stale_number_is_a_mismatch",
        "plugins_of_one_vm_id_share",
    ),
    "proxy_get_shared_data": _core(
        "shared", "what_is_stored_is_read_with_a_number", "a_key_that_is_not_there_is_not_found"
    ),
    "proxy_register_shared_queue": _core("shared", "a_queue_has_one_id_which_is_not_zero")
    + _core("deliveries", "the_last_that_registered_is_told"),
    "proxy_resolve_shared_queue": _core("shared", "queues_are_resolved_by_vm_id"),
    "proxy_enqueue_shared_queue": _core(
        "shared", "first_in_is_first_out", "a_full_queue_takes_no_more"
    ),
    "proxy_dequeue_shared_queue": _core(
        "shared", "first_in_is_first_out", "an_unknown_queue_is_not_found"
    ),
    "proxy_define_metric": _core(
        "shared",
        "metrics_have_ids_of_their_own_by_name_and_type",
        "an_unknown_type_is_a_bad_argument",
    ),
    "proxy_record_metric": _core(
        "shared", "recorded_values_are_unsigned_and_wide", "an_unknown_metric_is_not_found"
    ),
    "proxy_increment_metric": _core(
        "shared",
        "a_counter_adds_what_is_recorded_and_incremented",
        "a_gauge_is_set_and_moved_both_ways",
    ),
    "proxy_get_metric": _core(
        "shared",
        "a_counter_adds_what_is_recorded_and_incremented",
        "a_histogram_takes_values_and_gives_none",
    ),
    "proxy_call_foreign_function": _core(
        "foreign",
        "a_function_of_the_applications_wins",
        "a_function_can_choose_its_status",
        "an_asynchronous_result_comes_later",
    ),
    "pthread_equal": _TOOLCHAINS,
    "emscripten_notify_memory_growth": _TOOLCHAINS,
    "abort": _core("version_0_1_0", "an_abort_is_logged_with_its_message_and_place")
    + _older("abort_says_why_and_where", "abort_without_a_message_is_a_trap_and_says_so"),
}

WASI_CALLS: Final = {
    "args_sizes_get": _core("wasi", "there_are_no_arguments"),
    "clock_res_get": _core("wasi", "clocks_count_nanoseconds", "other_clocks_are_not_supported"),
    "clock_time_get": _core(
        "wasi",
        "the_wall_clock_and_the_steady_one_come_from_the_port",
        "other_clocks_are_not_supported",
    ),
    "environ_get": _core("wasi", "the_environment_is_what_the_settings_give"),
    "environ_sizes_get": _core("wasi", "there_is_no_environment_by_default"),
    "fd_fdstat_get": _core("wasi", "standard_output_may_be_written_to"),
    "fd_write": _core(
        "wasi", "what_is_printed_is_logged", "pieces_of_a_line_are_joined_within_a_call"
    ),
    "poll_oneoff": _core("wasi", "polling_ends_at_once_without_events"),
    "proc_exit": _core(
        "start", "a_main_may_end_with_exit_code_zero", "an_exit_in_a_stream_loses_the_instance"
    ),
    "random_get": _core("wasi", "random_bytes_come_from_the_port", "random_bytes_have_a_cap"),
}

CALLBACKS: Final = {
    "_initialize": _core("start", "initialize_comes_first_then_main_and_never_start"),
    "_start": _core("start", "start_is_called_where_there_is_no_initialize")
    + _older("a_main_that_links_os_and_ends_with_exit_has_started"),
    "main": _core("start", "initialize_comes_first_then_main_and_never_start"),
    "__main_void": _core("start", "main_void_stands_for_main"),
    "proxy_on_memory_allocate": _core(
        "allocator",
        "the_allocator_of_the_specification_is_preferred",
        "exactly_the_size_is_allocated",
    ),
    "malloc": _core("allocator", "malloc_will_do"),
    "proxy_on_context_create": _core(
        "contexts",
        "a_context_is_created_under_its_root_before_anything_else",
        "ids_are_never_zero_and_never_shared",
    ),
    "proxy_on_vm_start": _core(
        "contexts", "each_configuration_is_another_root_and_the_vm_starts_once"
    )
    + _core("start", "a_guest_that_answers_false_does_not_load"),
    "proxy_validate_configuration": _core("start", "a_guest_that_answers_false_does_not_load"),
    "proxy_on_configure": _core(
        "start",
        "the_sizes_of_the_configurations_are_told",
        "a_guest_that_answers_false_does_not_load",
    ),
    "proxy_on_done": _ENDINGS
    + _core("deliveries", "a_root_that_has_something_left_stays_until_it_is_done"),
    "proxy_on_log": _ENDINGS + _core("endings", "logs_come_in_chain_order_before_anything_is_done"),
    "proxy_on_delete": _ENDINGS + _core("contexts", "at_shutdown_roots_are_done_and_deleted"),
    "proxy_on_tick": _core(
        "deliveries", "a_tick_goes_to_its_root", "a_trap_in_a_tick_fails_the_streams_that_wait"
    ),
    "proxy_on_new_connection": _NETWORK,
    "proxy_on_downstream_data": _DATA,
    "proxy_on_downstream_connection_close": _CLOSE,
    "proxy_on_upstream_data": _DATA,
    "proxy_on_upstream_connection_close": _CLOSE,
    "proxy_on_request_headers": _core(
        "header_calls", "callbacks_are_told_the_number_of_headers_pseudo_headers_included"
    )
    + _core("version_0_1_0", "header_callbacks_have_two_parameters"),
    "proxy_on_request_body": _core(
        "bodies",
        "each_chunk_is_shown_once_and_goes_on",
        "a_paused_body_gathers_and_its_size_is_all_of_it",
    ),
    "proxy_on_response_headers": _core(
        "header_calls", "callbacks_are_told_the_number_of_headers_pseudo_headers_included"
    )
    + _core("version_0_1_0", "header_callbacks_have_two_parameters"),
    "proxy_on_response_body": _core(
        "bodies",
        "each_chunk_is_shown_once_and_goes_on",
        "a_paused_body_gathers_and_its_size_is_all_of_it",
    ),
    "proxy_on_response_trailers": _core(
        "trailers",
        "they_pass_behind_the_body",
        "they_can_be_read_and_changed",
        "a_plugin_may_add_some_with_the_last_of_the_body",
    ),
    "proxy_on_http_call_response": _core(
        "callouts",
        "an_answer_comes_once_to_the_root_with_its_sizes",
        "the_answer_can_be_read_while_it_is_delivered",
    )
    + _older("a_request_goes_on_when_the_answer_to_a_call_says_so"),
    "proxy_on_grpc_receive_initial_metadata": _ORDER + _METADATA,
    "proxy_on_grpc_receive": _core("grpc", "a_call_that_succeeds_ends_with_its_message") + _ORDER,
    "proxy_on_grpc_receive_trailing_metadata": _ORDER + _METADATA,
    "proxy_on_grpc_trailing_metadata": _core(
        "version_0_1_0", "trailing_metadata_comes_under_the_name_of_an_early_draft"
    ),
    "proxy_on_grpc_close": _core("grpc", "a_call_that_fails_ends_with_its_status") + _ORDER,
    "proxy_on_queue_ready": _core(
        "deliveries",
        "a_queue_is_ready_after_the_call_that_filled_it",
        "the_last_that_registered_is_told",
    ),
    "proxy_on_foreign_function": _core(
        "foreign",
        "an_asynchronous_result_comes_later",
        "a_stream_gets_its_answer_through_the_root_context",
    ),
}

_NOT_THERE: Final = {
    name: _core("wasi", "what_a_plugin_has_not_answers_an_errno")
    for name in signatures.WASI_CALLS
    if name not in wasi.IMPLEMENTED
}

PROOFS: Final = {**HOST_CALLS, **WASI_CALLS, **_NOT_THERE, **CALLBACKS}
