"""Every key of the training sections that is honoured has a test that shows what it does.

A new key fails here until the test that shows its effect is named; a key that a fate covers (a note or an error) has
none to show.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

from vlm_catalogs.config.fates import FATES
from vlm_catalogs.config.loader import all_keys

TESTS = Path(__file__).parent
SECTIONS = ("custom", "train", "policy", "validation", "logging")

SHOWN: dict[str, str] = {
    "custom.use_i4": "catalogs/test_sources.py::"
    "test_with_i4_the_dataset_of_the_training_policy_is_not_read_and_that_is_said",
    "custom.i4_data_source": "catalogs/test_i4_catalog.py::test_the_catalogue_that_was_read_is_in_the_notes",
    "custom.s3_bucket": "end_to_end/test_s3_sources.py::test_a_bucket_gives_the_shards_that_its_mirror_gives",
    "custom.s3_credentials_path": "end_to_end/test_s3_sources.py::test_what_is_wrong_is_one_message_that_names_it",
    "custom.include_video": "prep/test_select.py::test_each_rule_gives_its_reason_and_the_first_one_wins",
    "custom.train_layers": "train/test_trainable.py::test_train_layers_leaves_only_modules_of_the_class_trainable",
    "custom.enable_moe_load_balancing_training": "end_to_end/test_train_reference.py::"
    "test_the_first_five_losses_equal_those_of_a_plain_loop",
    "custom.n_step_per_workload_report": "end_to_end/test_run_report.py::"
    "test_the_page_shows_the_run_and_runs_nothing_of_its_data",
    "custom.allow_catalog_code": "catalogs/test_i4_catalog.py::test_code_is_read_when_the_toml_allows_it",
    "train.resume": "end_to_end/test_train_run.py::test_resume_takes_the_path_of_a_checkpoint_of_another_run",
    "train.epoch": "train/test_settings.py::test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.output_dir": "end_to_end/test_train_run.py::test_a_used_output_dir_is_refused_by_name",
    "train.max_num_steps": "train/test_settings.py::test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.train_batch_per_replica": "train/test_settings.py::test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.optm_name": "train/test_settings.py::test_the_optimizer_is_adamw_with_the_numbers_of_the_toml",
    "train.optm_lr": "train/test_settings.py::test_the_optimizer_is_adamw_with_the_numbers_of_the_toml",
    "train.optm_impl": "train/test_settings.py::test_the_optimizer_is_adamw_with_the_numbers_of_the_toml",
    "train.optm_weight_decay": "train/test_settings.py::test_the_optimizer_is_adamw_with_the_numbers_of_the_toml",
    "train.optm_betas": "train/test_settings.py::test_the_optimizer_is_adamw_with_the_numbers_of_the_toml",
    "train.epsilon": "train/test_settings.py::test_the_optimizer_is_adamw_with_the_numbers_of_the_toml",
    "train.optm_warmup_steps": "train/test_settings.py::test_warm_up_and_decay_follow_the_toml",
    "train.optm_decay_type": "train/test_settings.py::test_warm_up_and_decay_follow_the_toml",
    "train.optm_decay_ratio": "train/test_settings.py::test_warm_up_and_decay_follow_the_toml",
    "train.optm_min_lr_factor": "train/test_settings.py::test_warm_up_and_decay_follow_the_toml",
    "train.optm_grad_norm_clip": "train/test_settings.py::test_the_gradient_is_clipped_to_the_norm_of_the_toml",
    "train.param_dtype": "train/test_settings.py::test_the_types_are_those_of_the_toml",
    "train.master_dtype": "train/test_settings.py::test_the_types_are_those_of_the_toml",
    "train.fsdp_reduce_dtype": "train/test_settings.py::test_the_types_are_those_of_the_toml",
    "train.fsdp_offload": "train/test_settings.py::"
    "test_offloading_is_asked_of_fsdp_on_cuda_alone_and_refused_where_it_wins_nothing",
    "train.fsdp_reshard_after_forward": "train/models/test_rank_gradients.py::"
    "test_two_ranks_of_different_media_give_the_gradient_of_their_samples",
    "train.compile": "train/models/test_rank_gradients.py::"
    "test_a_compiled_and_recomputed_step_gives_the_gradient_of_its_samples",
    "train.seed": "train/test_settings.py::test_deterministic_asks_torch_for_it_and_seed_for_the_same_numbers",
    "train.deterministic": "train/test_settings.py::test_deterministic_asks_torch_for_it_and_seed_for_the_same_numbers",
    "train.on_bad_step": "end_to_end/test_bad_steps.py::"
    "test_a_step_with_a_poisoned_sample_is_skipped_and_a_resumed_run_goes_on_to_the_bit",
    "train.spike_mads": "train/test_guard.py::test_spikes_are_those_of_explain_with_and_without_a_save_in_between",
    "train.max_skipped_steps": "end_to_end/test_bad_steps.py::test_more_bad_steps_than_are_allowed_stop_the_run",
    "train.max_skipped_in_a_row": "end_to_end/test_bad_steps.py::test_more_bad_steps_than_are_allowed_stop_the_run",
    "train.stuck_after_seconds": "end_to_end/test_stuck_ranks.py::test_a_stopped_rank_is_named_by_the_other",
    "train.sequence_packing": "end_to_end/test_train_packed.py::test_packed_rows_train_as_single_rows_do",
    "train.save_ckpt_at_exit": "end_to_end/test_train_run.py::"
    "test_no_checkpoint_is_saved_at_the_end_when_the_toml_says_so",
    "train.train_policy.type": "catalogs/test_config_fates.py::test_a_value_that_would_change_results_is_refused",
    "train.train_policy.dataset.name": "catalogs/test_sources.py::"
    "test_a_dataset_of_the_training_policy_is_called_like_its_folder",
    "train.train_policy.dataset.subset": "catalogs/test_config_fates.py::"
    "test_a_value_that_would_change_results_is_refused",
    "train.train_policy.dataset.revision": "catalogs/test_config_fates.py::"
    "test_a_value_that_would_change_results_is_refused",
    "train.train_policy.dataset.split": "catalogs/test_config_fates.py::"
    "test_a_value_that_would_change_results_is_refused",
    "train.train_policy.dataset.local_dir": "catalogs/test_config_fates.py::"
    "test_a_value_that_would_change_results_is_refused",
    "train.train_policy.dataset.test_size": "end_to_end/test_validation.py::test_held_out_samples_are_never_trained_on",
    "train.train_policy.mini_batch": "train/test_settings.py::test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.train_policy.dataloader_shuffle": "train/test_settings.py::"
    "test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.train_policy.dataloader_seed": "train/test_settings.py::"
    "test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.train_policy.dataloader_num_workers": "train/test_settings.py::"
    "test_threads_that_encode_are_those_of_the_stream_or_of_the_data_loader",
    "train.train_policy.dataloader_drop_last": "train/test_settings.py::"
    "test_a_run_has_the_steps_of_its_epochs_batch_and_limit",
    "train.train_policy.conversation_column_name": "catalogs/test_config_fates.py::"
    "test_a_value_that_would_change_results_is_refused",
    "train.train_policy.system_prompt": "end_to_end/test_measured_lengths.py::"
    "test_measured_lengths_are_the_encoded_ones",
    "train.train_policy.balance_dp_token": "train/test_loss_weights.py::"
    "test_each_micro_batch_weighs_the_same_whatever_the_forward_passes",
    "train.ckpt.enable_checkpoint": "train/test_settings.py::test_checkpoints_fall_due_by_steps_or_by_epochs",
    "train.ckpt.save_freq": "train/test_settings.py::test_checkpoints_fall_due_by_steps_or_by_epochs",
    "train.ckpt.save_freq_in_epoch": "train/test_settings.py::test_checkpoints_fall_due_by_steps_or_by_epochs",
    "train.ckpt.save_mode": "end_to_end/test_torchrun.py::test_a_killed_run_goes_on_to_the_bit_with_any_workers",
    "train.ckpt.max_keep": "train/test_checkpoint.py::"
    "test_max_keep_removes_the_oldest_by_number_and_minus_one_keeps_all",
    "train.ckpt.export_safetensors": "end_to_end/test_train_run.py::"
    "test_exports_reload_with_plain_transformers_and_agree",
    "train.ckpt.upload_hf": "end_to_end/test_uploads.py::test_uploads_that_cannot_work_are_refused",
    "train.ckpt.hf_repo_name": "end_to_end/test_uploads.py::test_uploads_that_cannot_work_are_refused",
    "train.ckpt.upload_s3": "end_to_end/test_uploads.py::test_every_checkpoint_and_the_export_are_copied_whole",
    "train.ckpt.s3_bucket": "end_to_end/test_uploads.py::test_every_checkpoint_and_the_export_are_copied_whole",
    "train.ckpt.s3_prefix": "end_to_end/test_uploads.py::test_every_checkpoint_and_the_export_are_copied_whole",
    "policy.model_name_or_path": "catalogs/test_config.py::"
    "test_a_missing_model_and_an_unknown_family_are_problems_among_the_others",
    "policy.model_revision": "train/test_settings.py::test_a_hub_model_is_read_at_its_revision",
    "policy.trust_remote_code": "train/test_settings.py::test_code_of_a_checkpoint_runs_only_where_the_toml_trusts_it",
    "policy.model_safetensor_path": "train/models/test_pretrained.py::test_weights_may_come_from_another_model_folder",
    "policy.model_max_length": "prep/test_select.py::test_each_rule_gives_its_reason_and_the_first_one_wins",
    "policy.model_gradient_checkpointing": "train/models/test_rank_gradients.py::"
    "test_one_process_gives_the_gradient_of_its_samples_in_any_way",
    "policy.freeze_pattern": "train/test_trainable.py::"
    "test_freeze_pattern_freezes_what_it_matches_anywhere_in_the_name",
    "policy.trainable_pattern": "train/test_trainable.py::test_later_rules_win_in_the_written_order",
    "policy.trainable_map": "train/test_trainable.py::test_later_rules_win_in_the_written_order",
    "policy.enable_liger_kernel": "train/test_settings.py::test_kernels_that_are_asked_for_and_not_there_are_refused",
    "policy.aux_loss_coeff": "train/models/test_aux_loss.py::"
    "test_the_loss_is_that_of_the_whole_step_whatever_the_micro_batches",
    "policy.parallelism.dp_shard_size": "end_to_end/test_train_ranks.py::test_two_ranks_train_as_one_process_does",
    "policy.parallelism.dp_replicate_size": "end_to_end/test_train_ranks.py::"
    "test_two_copies_of_the_parameters_train_as_one_process_does",
    "policy.parallelism.tp_size": "train/test_ranks.py::"
    "test_tensor_parallelism_of_nemotron_is_read_as_experts_and_multiplies_the_ranks",
    "policy.parallelism.ep_size": "end_to_end/test_train_ranks.py::"
    "test_a_run_with_experts_over_two_ranks_goes_on_in_one_process_and_back",
    "policy.lora.r": "train/test_settings.py::test_adapters_have_the_rank_scale_and_dropout_of_the_toml",
    "policy.lora.lora_alpha": "train/test_settings.py::test_adapters_have_the_rank_scale_and_dropout_of_the_toml",
    "policy.lora.lora_dropout": "train/test_settings.py::test_adapters_have_the_rank_scale_and_dropout_of_the_toml",
    "policy.lora.target_modules": "train/test_settings.py::test_adapters_have_the_rank_scale_and_dropout_of_the_toml",
    "policy.lora.modules_to_save": "train/test_settings.py::test_adapters_have_the_rank_scale_and_dropout_of_the_toml",
    "policy.lora.use_rslora": "train/test_settings.py::test_adapters_have_the_rank_scale_and_dropout_of_the_toml",
    "validation.enable": "end_to_end/test_validation.py::test_measuring_changes_no_step",
    "validation.freq": "end_to_end/test_validation.py::"
    "test_it_is_measured_before_the_first_step_on_schedule_and_at_the_end",
    "validation.val_before_train": "end_to_end/test_validation.py::"
    "test_it_is_measured_before_the_first_step_on_schedule_and_at_the_end",
    "validation.batch_size": "train/test_validation.py::test_ranks_have_the_batches_of_one_rank_and_as_many_each",
    "validation.generate": "end_to_end/test_validation.py::test_a_few_held_out_samples_are_answered_at_each_validation",
    "validation.max_response_length": "end_to_end/test_validation.py::"
    "test_a_few_held_out_samples_are_answered_at_each_validation",
    "validation.i4_val": "end_to_end/test_held_out_sources.py::"
    "test_two_sources_of_evaluation_for_one_dataset_are_an_error_that_names_both",
    "validation.dataset.name": "end_to_end/test_held_out_sources.py::"
    "test_a_dataset_of_its_own_gives_the_loss_of_the_same_samples_as_i4_data",
    "validation.dataset.subset": "catalogs/test_config_fates.py::"
    "test_a_part_of_a_dataset_to_validate_on_is_refused_where_it_is_read",
    "validation.dataset.revision": "catalogs/test_config_fates.py::"
    "test_a_part_of_a_dataset_to_validate_on_is_refused_where_it_is_read",
    "validation.dataset.split": "catalogs/test_config_fates.py::"
    "test_a_part_of_a_dataset_to_validate_on_is_refused_where_it_is_read",
    "validation.dataset.test_size": "catalogs/test_config_fates.py::"
    "test_a_part_of_a_dataset_to_validate_on_is_refused_where_it_is_read",
    "validation.dataset.local_dir": "catalogs/test_config_fates.py::"
    "test_a_part_of_a_dataset_to_validate_on_is_refused_where_it_is_read",
    "logging.logger": "train/test_loggers.py::test_tensorboard_reads_back_what_was_logged",
    "logging.project_name": "train/test_loggers.py::test_wandb_writes_a_run_offline_and_goes_on_under_its_id",
    "logging.experiment_name": "train/test_loggers.py::test_wandb_writes_a_run_offline_and_goes_on_under_its_id",
    "logging.log_interval": "train/test_settings.py::test_a_plain_line_comes_every_so_many_steps",
    "logging.report_mfu": "train/test_gauges.py::test_without_a_known_peak_nothing_is_shown_and_it_is_said",
    "logging.peak_tflops": "train/test_gauges.py::test_the_peak_is_that_of_the_device_or_the_one_given",
}
"""Key -> the test that fails where the key does nothing."""


def honoured() -> set[str]:
    return {key for key in all_keys() if key.partition(".")[0] in SECTIONS and key not in FATES}


@cache
def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_honoured_key_names_the_test_of_its_effect() -> None:
    assert honoured() == SHOWN.keys()


@pytest.mark.parametrize("key", sorted(SHOWN))
def test_the_test_of_a_key_is_there_and_speaks_of_it(key: str) -> None:
    path, _, name = SHOWN[key].partition("::")
    assert name in names_in(TESTS / path)
    assert key.rpartition(".")[2] in (TESTS / path).read_text()
