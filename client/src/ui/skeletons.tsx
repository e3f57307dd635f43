import styles from './skeletons.module.css'

/** Placeholders for content that is loading. */
export function Skeletons({ label, count, hasTitle }: { label: string; count: number; hasTitle?: boolean }) {
  return (
    <div className={styles.skeletons} role="status">
      <span className="visually-hidden">{label}</span>
      {hasTitle && <span className={`${styles.skeleton} ${styles.title}`} />}
      {Array.from({ length: count }, (_, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the placeholders are all the same.
        <span key={index} className={styles.skeleton} />
      ))}
    </div>
  )
}
