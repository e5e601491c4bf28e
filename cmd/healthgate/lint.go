package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"healthgate/internal/lint"
)

// outputFlag adds --output, which is text or json.
func outputFlag(command *cobra.Command) *string {
	output := command.Flags().StringP("output", "o", "text", "text, or json for programs")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return output
}

func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("--output: %q is neither text nor json", output)
	}
	return nil
}

func newLint() *cobra.Command {
	command := &cobra.Command{
		Use:   "lint FILE… | -",
		Short: "Find problems in a configuration",
		Long: `Find problems around a gate.

A file is an Envoy bootstrap or a part of one (a listener, a route configuration, a cluster), in YAML or JSON; a Kubernetes
ConfigMap with one; or the output of admin's /config_dump. Files are checked together: a listener, its clusters, and the
Deployment and the BackendConfig around it may be in separate files.

A comment "# healthgate: ignore RULE, because …" silences a rule on its line. docs/lint.md has the rules.`,
		Example: `  healthgate lint envoy.yaml
  kubectl kustomize overlays/gke-ingress | healthgate lint -
  curl -s localhost:9901/config_dump | healthgate lint --output json -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("lint needs files: name one or more, or - for standard input")
			}
			return nil
		},
	}
	output := outputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		inputs, unread := readInputs(command.InOrStdin(), args)
		found, unseen := lint.Run(inputs)
		if err := printAs(*output, command.OutOrStdout(), "findings", append([]lint.Finding{}, found...)); err != nil {
			return err
		}
		if err := errors.Join(unread, unseen); err != nil {
			return err
		}
		if len(found) > 0 {
			return reported(exitProblems)
		}
		return nil
	}
	return command
}

// readInputs reads files, and - as standard input.
func readInputs(in io.Reader, names []string) (inputs []lint.Input, err error) {
	for _, name := range names {
		var content []byte
		var failed error
		if name == "-" {
			name = "<stdin>"
			content, failed = lint.ReadAll(in)
		} else {
			content, failed = readFile(name)
		}
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		inputs = append(inputs, lint.Input{Name: name, Content: content})
	}
	return inputs, err
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return lint.ReadAll(file)
}
