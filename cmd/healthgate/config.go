package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"healthgate/internal/configure"
	"healthgate/internal/lint"
)

func newConfig() *cobra.Command {
	command := &cobra.Command{
		Use:   "config",
		Short: "Print what to add for a gate, or write it into a file",
		Long: `Print what to add to an Envoy configuration for a gate of a cluster, as YAML with comments.

With --into it shows what would be added to a bootstrap in YAML, each line in its place, as a diff; --write adds it. The file's
own lines stay as they are.`,
		Example: `  healthgate config --cluster service
  healthgate config --cluster service --path /healthz --grpc-service shop.v1.Checkout --into envoy.yaml
  healthgate config --cluster service --door stock --into envoy.yaml --write`,
		Args: cobra.NoArgs,
	}
	flags := command.Flags()
	cluster := flags.String("cluster", "", "the cluster's name in Envoy")
	path := flags.String("path", "/", "the probe's path")
	door := flags.String("door", "contrib", "contrib: the golang extension of Envoy's contrib build; stock: a dynamic module, in any Envoy from 1.38 on")
	service := flags.String("grpc-service", "", "what the cluster's health check asks for by grpc.health.v1; empty asks for the server as a whole")
	into := flags.String("into", "", "a bootstrap in YAML to add it to")
	write := flags.Bool("write", false, "with --into: write the file")
	_ = command.MarkFlagRequired("cluster")
	_ = command.RegisterFlagCompletionFunc("door", cobra.FixedCompletions([]string{"contrib", "stock"}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, _ []string) error {
		if *door != "contrib" && *door != "stock" {
			return fmt.Errorf("--door: %q is neither contrib nor stock", *door)
		}
		if *write && *into == "" {
			return errors.New("--write: goes with --into FILE")
		}
		wanted := configure.Wanted{Cluster: *cluster, Path: *path, Stock: *door == "stock", GRPCService: *service}
		if err := wanted.Check(); err != nil {
			return err
		}
		if *into == "" {
			_, err := io.WriteString(command.OutOrStdout(), wanted.Print())
			return err
		}
		return configInto(command, wanted, *into, *write)
	}
	return command
}

func configInto(command *cobra.Command, wanted configure.Wanted, name string, write bool) error {
	content, err := readFile(name)
	if err != nil {
		return err
	}
	result, diff, err := wanted.Into(name, content)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(command.OutOrStdout(), diff); err != nil {
		return err
	}
	if write {
		if err := replaceFile(name, result); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: nothing is written yet; --write does it")
	}
	// What stands around the gate may still be wrong.
	found, err := lint.Run([]lint.Input{{Name: name, Content: result}})
	if err != nil {
		return err
	}
	if len(found) > 0 {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: lint finds in the result:")
		if err := printFindings(command.ErrOrStderr(), "text", found); err != nil {
			return err
		}
		return errFound
	}
	return nil
}

// replaceFile writes a file as a whole or not at all, with the mode that it has.
func replaceFile(name string, content []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), ".healthgate-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Chmod(info.Mode().Perm()), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), name)
}
