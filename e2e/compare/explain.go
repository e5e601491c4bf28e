package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"healthgate/e2e/testbed"
)

// command is the side of a Disagreement about the command, followed by its kind.
const command = "healthgate explain"

// explainedGate is a gate in the command's report.
type explainedGate struct {
	Listener, Path string
	Answer         struct {
		Status      int
		Details, By string
	}
}

// compareExplained compares the command's report, by numbers and by probes, with the module's answers, for gates that their path
// identifies. The numbers do not show hold.
func (r *Run) compareExplained(ctx context.Context) (*Disagreement, error) {
	for by, args := range map[string][]string{"numbers": {"--probe=false"}, "probe": nil} {
		var questions []*question
		report := map[string]explainedGate{}
		for _, g := range r.gates {
			if g.Place.Route < 0 || !explained(g.Place.Route) || !g.Variant.AnswersGRPC() || g.config.timed() {
				continue
			}
			ask := func() (reply, error) {
				want := report[g.Listener+g.Path] // empty if the gate is not in the report
				same := want.Answer.Status == g.last.Status && want.Answer.Details == g.last.Details && want.Answer.By == by
				return reply{got: g.last, want: want.Answer, same: same, counts: true, patience: patience}, nil
			}
			questions = append(questions, &question{pair: "explain by " + by + " and the gate", with: command + " by " + by, gate: g, ask: ask})
		}
		runCommand := func() error { // each time that the questions are asked
			gates, err := explain(ctx, "unix://"+r.adminSocket(), args...)
			clear(report)
			for _, g := range gates {
				report[g.Listener+g.Path] = g
			}
			return err
		}
		if found, err := r.agree(ctx, questions, runCommand); err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

// explain runs the command as users do.
func explain(ctx context.Context, admin string, args ...string) ([]explainedGate, error) {
	args = append([]string{"explain", "--admin", admin, "--output", "json"}, args...)
	text, err := exec.CommandContext(ctx, filepath.Join(testbed.Root(), "build", "healthgate"), args...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // 1: problems found
		return nil, fmt.Errorf("healthgate explain: %w (make command builds it)", err)
	}
	var report struct{ Gates []explainedGate }
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("healthgate explain: %w: %s", err, text)
	}
	return report.Gates, nil
}
