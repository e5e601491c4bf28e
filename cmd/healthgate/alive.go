package main

import (
	"log"

	"github.com/spf13/cobra"
)

func newAlive() *cobra.Command {
	command := &cobra.Command{
		Use:   "alive",
		Short: "Check that Envoy's main thread answers: for livenessProbe",
		Long: `Check that Envoy's main thread answers, whatever the state of the backends: for a livenessProbe or a startupProbe. A
restart of Envoy does not help a backend. If Envoy does not answer, the exit code is 2 and the container's log has the reason too.`,
		Example: `  livenessProbe:
    exec: {command: [/usr/local/bin/healthgate, alive]}`,
		Args: noArgument("admin"),
	}
	connect, file := adminFlag(command), logFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		return logged(command, command.ErrOrStderr(), containerLog(*file), func(log *log.Logger) error {
			admin, err := connect()
			if err != nil {
				return err
			}
			if _, err := admin.ServerInfo(command.Context()); err != nil {
				log.Print(err)
				return reported(exitFailed)
			}
			return nil
		})
	}
	return command
}
