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

// command begins With of a Disagreement about the command.
const command = "the command's explain"

// explained is a gate in the command's report.
type explained struct {
	Listener, Path string
	Answer         struct {
		Status      int
		Details, By string
	}
}

// compareExplained compares the command's report, by the numbers and by probes, to the module's answers, for the gates that a path names.
// The numbers do not show hold.
func (r *Run) compareExplained(ctx context.Context) (*Disagreement, error) {
	for by, args := range map[string][]string{"numbers": {"--probe=false"}, "probe": nil} {
		var questions []*question
		report := map[string]explained{}
		for _, p := range r.points {
			if p.Gate.Route < 0 || !namedByPath(p.Gate.Route) || !p.Variant.AnswersGRPC() || p.config.timed() {
				continue
			}
			questions = append(questions, &question{pair: "explain by " + by + " and the gate", ask: func() (o outcome, err error) {
				got, there := report[p.Listener+p.Path]
				return outcome{
					same:   there && got.Answer.Status == p.last.Status && got.Answer.Details == p.last.Details && got.Answer.By == by,
					counts: true, patience: patience, with: command + " by " + by, point: p,
					where: func() string { return r.world.describe(p.String(), p.config) },
					got:   func() string { return fmt.Sprintf("%+v", p.last) },
					want:  func() string { return fmt.Sprintf("%+v (in the report: %v)", got.Answer, there) },
				}, nil
			}})
		}
		// The command is run anew for each time that all are asked.
		if len(questions) == 0 {
			return nil, nil
		}
		before := func() error {
			gates, err := explain(ctx, r.Envoy.Admin, args...)
			clear(report)
			for _, g := range gates {
				report[g.Listener+g.Path] = g
			}
			return err
		}
		if found, err := r.agreeAfter(ctx, before, questions); err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

// explain runs the command as its users do.
func explain(ctx context.Context, admin string, args ...string) ([]explained, error) {
	args = append([]string{"explain", "--admin", admin, "--output", "json"}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(testbed.Root(), "build", "healthgate"), args...)
	text, err := cmd.Output()
	const problems = 1 // the exit code if there are any
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != problems) {
		return nil, fmt.Errorf("healthgate explain: %w (make command builds it)", err)
	}
	var report struct{ Gates []explained }
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("healthgate explain: %w: %s", err, text)
	}
	return report.Gates, nil
}
